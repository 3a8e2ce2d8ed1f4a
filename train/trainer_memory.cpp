// What a run takes of memory, and the choices that it has.
#include <algorithm>
#include <string>
#include <utility>

#include "train/trainer.h"

namespace cald {

MemoryBounds Trainer::bounds() const {
  double passes = 3;  // forward, and backward for inputs and weights
  if (guide_) passes += options_.mode == Mode::trajectory ? 3 : 1;
  const std::int64_t batch = std::min(options_.batch_size, train_.size());
  const double tokens = static_cast<double>(batch) * train_.mean_length();
  return {student_->config().layers, batch, tokens, options_.recompute, options_.micro_batches, passes};
}

std::vector<bool> Trainer::teacher_choices() const {
  if (!guide_ || !guide_->weights().can_be_mapped) return {false};
  return options_.map_teacher ? std::vector<bool>{true} : std::vector<bool>{false, true};
}

MemoryCost Trainer::cost() const {
  MemoryCost c = memory_cost(heap_, memory_);
  const TeacherWeights w = guide_ ? guide_->weights() : TeacherWeights{};
  if (!w.are_mapped) return c;
  c.by_class[static_cast<int>(MemClass::teacher)] += w.if_mapped - w.taken;
  c.persistent += w.if_mapped - w.taken;
  return c;
}

std::size_t Trainer::bytes_with(std::int64_t recompute, std::int64_t micro_batches, std::int64_t batch,
                                bool map_teacher) {
  if (!step_) return heap_.live_bytes();
  RunOptions o = options_;
  o.recompute = recompute;
  o.micro_batches = micro_batches;
  const bool early = TrainStep::updates_early(o);
  RecordingAllocator shapes_only;
  ParameterSet& parameters = student_->parameters();
  parameters.set_gradients(shapes_only, early ? Gradients::transient : Gradients::kept);
  std::size_t kept = 0;
  if (!early)
    for (const Parameter& p : parameters.all()) kept += p.grad.bytes();
  PlannedMemory memory(memory_.exec(), heap_);
  TrainStep(o, *student_, *optimizer_, guide_.get(), schedule_, memory).plan(batch, train_.longest());
  if (dev_) plan_evaluation(*student_, *dev_, options_.eval_batch_size, memory);
  if (drift_) drift_->plan(memory);
  parameters.set_gradients(shapes_only, Gradients::none);
  const TeacherWeights w = guide_ ? guide_->weights() : TeacherWeights{};
  return heap_.live_bytes() - w.taken + (map_teacher ? w.if_mapped : w.if_copied) + kept + memory.bytes();
}

std::size_t Trainer::bytes_for(std::int64_t batch) {
  return bytes_with(options_.recompute, options_.micro_batches, batch, options_.map_teacher);
}

std::vector<MemoryChoice> Trainer::trade() {
  std::vector<MemoryChoice> all;
  MemoryBounds b = bounds();
  for (const bool mapped : teacher_choices()) {
    b.map_teacher = mapped;
    const auto choices =
        memory_trade(b, [&](std::int64_t r, std::int64_t m) { return bytes_with(r, m, b.batch, mapped); });
    all.insert(all.end(), choices.begin(), choices.end());
  }
  return all;
}

Trainer::LeastMemory Trainer::least_memory() {
  const std::vector<MemoryChoice> all = trade();
  const auto smaller = [](const MemoryChoice& a, const MemoryChoice& b) { return a.bytes < b.bytes; };
  const MemoryChoice least = *std::min_element(all.begin(), all.end(), smaller);
  LeastMemory l{all.front().bytes, least, "", least.bytes};
  const std::int64_t examples = std::exchange(options_.eval_batch_size, 1);
  const std::size_t one_by_one = bytes_with(least.recompute, least.micro_batches, bounds().batch, least.map_teacher);
  options_.eval_batch_size = examples;
  if (one_by_one < l.further_bytes) {
    l.further_bytes = one_by_one;
    l.further = "--eval-batch-size 1";
  }
  if (options_.moments == DTypeOption::f32) {
    l.further_bytes -= (optimizer_->moment_bytes() + (guide_ ? guide_->moment_bytes() : 0)) / 2;
    l.further += (l.further.empty() ? "" : " ") + std::string("--moments bf16");
  }
  return l;
}

std::size_t Trainer::copy_bytes() const {
  return student_->parameters().copy_bytes(memory_.exec()) + (guide_ ? guide_->copy_bytes() : 0);
}

void Trainer::keep_copies() {
  student_->parameters().keep_copies(heap_, MemClass::weights, memory_.exec());
  if (guide_) guide_->keep_copies();
}

bool Trainer::fit(std::size_t budget) {
  if (!step_) return true;
  std::optional<MemoryChoice> best;
  MemoryBounds b = bounds();
  for (const bool mapped : teacher_choices()) {
    b.map_teacher = mapped;
    const auto bytes = [&](std::int64_t r, std::int64_t m) { return bytes_with(r, m, b.batch, mapped); };
    const std::optional<MemoryChoice> found = fit_memory(b, bytes, budget);
    if (found && (!best || found->time < best->time)) best = found;
  }
  if (!best) return false;
  options_.recompute = best->recompute;
  options_.micro_batches = best->micro_batches;
  options_.map_teacher = best->map_teacher;
  take_room(budget);
  return true;
}

void Trainer::take_room(std::size_t budget) {
  if (!step_) return;
  if (guide_ && !options_.map_teacher && guide_->weights().are_mapped) guide_->copy_weights();
  const std::size_t copies = copy_bytes();
  if (copies && bytes_for(bounds().batch) + copies <= budget) keep_copies();
}

void Trainer::plan() {
  if (step_) {
    const Gradients where = TrainStep::updates_early(options_) ? Gradients::transient : Gradients::kept;
    student_->parameters().set_gradients(heap_, where);
  }
  if (step_) step_->plan(std::min(options_.batch_size, train_.size()), train_.longest());
  if (dev_) plan_evaluation(*student_, *dev_, options_.eval_batch_size, memory_);
  if (drift_) drift_->plan(memory_);
}

}  // namespace cald
