#include "train/train_step.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "kernels/device.h"
#include "kernels/transfer.h"

namespace cald {
namespace {

struct NonFiniteLoss {};

struct ForgetTransient {
  ParameterSet& parameters;
  ~ForgetTransient() {
    for (Parameter& p : parameters.all())
      if (p.transient_grad) p.grad = p.grad_rows = {};
  }
};

constexpr std::uint32_t kStudentStream = 0;

/// Examples of each part of a batch: as equal as can be, the larger parts first, and no empty one.
std::vector<std::int64_t> part_sizes(std::int64_t batch, std::int64_t parts) {
  parts = std::min(parts, batch);
  std::vector<std::int64_t> sizes;
  for (std::int64_t i = 0; i < parts; ++i) sizes.push_back(batch / parts + (i < batch % parts));
  return sizes;
}

}  // namespace

TrainStep::TrainStep(const RunOptions& options, Encoder& student, Optimizer& optimizer, Guide* guide,
                     const LearningRateSchedule& schedule, PlannedMemory& memory)
    : options_(options),
      student_(student),
      optimizer_(optimizer),
      guide_(guide),
      schedule_(schedule),
      weights_(LossWeights::from(options)),
      memory_(memory) {
  hybrid_stop_ = options.hybrid_stop ? options.hybrid_stop->of(schedule.steps) : schedule.steps;  // eq:hybrid_stop
}

bool TrainStep::wants_states(std::int64_t step) const { return guide_ && weights_.ld != 0 && step < hybrid_stop_; }

bool TrainStep::wants_logits(std::int64_t step) const {
  const bool stops = options_.hybrid_stop_terms == StopTerms::all;
  return guide_ && weights_.kd != 0 && (step < hybrid_stop_ || !stops);
}

std::string TrainStep::kind(std::int64_t step) const {
  std::string kind;
  if (wants_states(step) || wants_logits(step)) kind += " " + guide_->phase(step);
  if (wants_states(step)) kind += " states";
  if (wants_logits(step)) kind += " logits";
  return kind;
}

PlanKey TrainStep::micro_key(std::int64_t step, std::int64_t batch, std::int64_t seq, bool adds) const {
  return {"step" + kind(step) + (adds ? " adding" : ""), batch, seq};
}

void TrainStep::clear_gradients() {
  student_.parameters().clear_gradients();
  if (guide_) guide_->clear_gradients();
}

std::vector<TrainStep::Micro> TrainStep::cut(std::int64_t step, const std::vector<TokenBatch>& batches,
                                             std::vector<TokenBatch>& parts) const {
  std::vector<Micro> micros;
  for (const TokenBatch& b : batches) {
    const double valid = static_cast<double>(b.valid_tokens());
    std::int64_t begin = 0;
    for (const std::int64_t rows : part_sizes(b.batch, options_.micro_batches)) {
      parts.push_back(b.rows(begin, begin + rows));
      begin += rows;
      const TokenBatch& part = parts.back();
      const double examples = static_cast<double>(part.batch) / static_cast<double>(b.batch);
      const double tokens = weights_.ld_pads ? examples : static_cast<double>(part.valid_tokens()) / valid;
      const auto n = static_cast<double>(batches.size());
      micros.push_back({step, part.batch, part.seq, nullptr, examples / n, tokens / n});
    }
  }
  for (std::size_t i = 0; i < parts.size(); ++i) micros[i].host = &parts[i];
  return micros;
}

void TrainStep::plan(std::int64_t whole, std::int64_t seq) {
  const std::vector<std::int64_t> parts = part_sizes(whole, options_.micro_batches);
  const std::set<std::int64_t, std::greater<>> sizes(parts.begin(), parts.end());
  const bool several = parts.size() > 1 || options_.accumulate > 1;
  // The kind of a step changes at the hybrid stop and with the teacher's interval, and nowhere else.
  std::set<std::string> seen;
  for (const std::int64_t from : {std::int64_t{0}, hybrid_stop_})
    for (std::int64_t step = from; step < std::min(from + options_.teacher_interval, schedule_.steps); ++step) {
      if (!seen.insert(kind(step)).second) continue;
      const auto plan_part = [&](std::int64_t size, bool adds) {
        const Micro micro{step, size, seq, nullptr, 1, 1};
        memory_.plan(micro_key(step, size, seq, adds), [&](Context& c) { micro_step(c, micro, nullptr); });
      };
      clear_gradients();  // a shape-only run also marks gradients as begun
      plan_part(parts.front(), false);
      const auto is_new = [&](std::int64_t size) {
        return memory_.plans().count(micro_key(step, size, seq, true)) == 0;
      };
      if (several && std::any_of(sizes.begin(), sizes.end(), is_new)) {
        // What adds finds the gradients begun, also where the plan of what sets them was there before.
        RecordingAllocator unseen;
        Context shapes(memory_.exec(), unseen, true);
        micro_step(shapes, {step, parts.front(), seq, nullptr, 1, 1}, nullptr);
        for (const std::int64_t size : sizes) plan_part(size, true);
      }
      memory_.plan({"update" + kind(step), 0, 0}, [&](Context& c) { update(c, step); });
    }
}

StepLosses TrainStep::run(std::int64_t step, const std::vector<TokenBatch>& batches) {
  for (const TokenBatch& b : batches) plan(b.batch, b.seq);
  ++begun_;
  memory_.use_graphs(!profiled_.holds(begun_));
  const DeviceFunctions& device = functions_of(memory_.exec().device);
  if (begun_ == profiled_.first) device.profile(memory_.exec(), true);
  const StepLosses losses = run_planned(step, batches);
  if (begun_ == profiled_.last) device.profile(memory_.exec(), false);
  return losses;
}

StepLosses TrainStep::run_planned(std::int64_t step, const std::vector<TokenBatch>& batches) {
  const std::string name = "step " + std::to_string(step + 1);
  const ProfileRange range(functions_of(memory_.exec().device), name.c_str());
  std::vector<TokenBatch> parts;
  const std::vector<Micro> micros = cut(step, batches, parts);
  if (memory_.observer()) memory_.observer()->begin_step(step + 1);
  clear_gradients();
  if (wants_states(step) || wants_logits(step)) guide_->begin_step(step);
  StepLosses losses;
  for (const Micro& m : micros) {
    try {
      memory_.run(micro_key(step, m.batch, m.seq, &m != &micros.front()),
                  [&](Context& c) { micro_step(c, m, &losses); });
    } catch (const NonFiniteLoss&) {
      explain_non_finite(m);
    }
  }
  memory_.run({"update" + kind(step), 0, 0}, [&](Context& c) { update(c, step); });
  if (memory_.observer()) memory_.observer()->end_step();
  return losses;
}

void TrainStep::micro_step(Context& c, const Micro& m, StepLosses* losses) {
  const bool reads = losses && !c.meta();
  LossValues values;
  std::optional<Tape> student;
  {
    const Context::Scope scope(c, "student");  // below which the backward's scopes lie
    student.emplace(c);
  }
  Tape& tape = *student;
  Tensor total;
  c.gather("forward", [&] { total = forward(c, tape, m, reads ? &values : nullptr); });
  if (reads) {
    c.synchronize();  // the one wait of a micro-batch
    add_losses(values, m, *losses);
  }
  if (c.checks_finite()) return;

  const Context::Scope scope(c, "student");
  if (updates_early(options_))
    tape.on_complete([&](Parameter& p) {
      const Context::Scope update(c, "update");
      optimizer_.update_now(c, p, schedule_.factor(m.step));
      p.forget_grad();
    });
  // Should the backward fail, no gradient may outlive the memory that it was taken from.
  const ForgetTransient forget{student_.parameters()};
  c.gather("backward", [&] { tape.backward(total); });
}

Tensor TrainStep::forward(Context& c, Tape& tape, const Micro& m, LossValues* values) {
  const LabelledInput in = make_input(c, m.batch, m.seq, m.host, student_.config());
  Guidance guidance;
  std::optional<Tensor> teacher_ce;
  if (wants_states(m.step) || wants_logits(m.step))
    guidance = guide_->guide(c, in, {m.step, wants_states(m.step), wants_logits(m.step), m.share, options_.recompute},
                             teacher_ce);

  const Context::Scope scope(c, "student");
  const bool drops = !options_.dropout || *options_.dropout > 0;
  const DropoutPlan dropout{drops, options_.dropout ? static_cast<float>(*options_.dropout) : -1.0f, options_.seed,
                            static_cast<std::uint32_t>(m.step), kStudentStream};
  EncoderOutput out = student_.forward(tape, in.encoder, dropout, wants_states(m.step), options_.recompute);
  const LossTerms terms = cald_loss(tape, out, guidance, in.labels, in.encoder.mask, weights_, {m.share, m.ld_share});
  if (!values) return terms.total;
  const auto read = [&](const Tensor& t, std::optional<float>& to) {
    if (t) c.launch(Download{t, &to.emplace()});
  };
  read(terms.total, values->total);
  read(terms.ce, values->ce);
  read(terms.kd, values->kd);
  read(terms.ld, values->ld);
  if (teacher_ce) read(*teacher_ce, values->teacher_ce);
  values->ld_by_state.resize(terms.ld_by_state.size());
  for (std::size_t i = 0; i < terms.ld_by_state.size(); ++i)
    c.launch(Download{terms.ld_by_state[i], &values->ld_by_state[i]});
  return terms.total;
}

void TrainStep::add_losses(const LossValues& values, const Micro& m, StepLosses& into) const {
  const auto finite = [](float f) {
    if (!std::isfinite(f)) throw NonFiniteLoss{};
    return static_cast<double>(f);
  };
  const auto add = [&](std::optional<double>& sum, const std::optional<float>& value, double share) {
    if (value) sum = sum.value_or(0) + share * finite(*value);
  };
  into.total += finite(*values.total);
  add(into.ce, values.ce, m.share);
  add(into.kd, values.kd, m.share);
  add(into.ld, values.ld, m.ld_share);
  add(into.teacher_ce, values.teacher_ce, m.share);
  into.ld_by_state.resize(values.ld_by_state.size());
  for (std::size_t i = 0; i < values.ld_by_state.size(); ++i)
    into.ld_by_state[i] += m.ld_share * finite(values.ld_by_state[i]);
}

void TrainStep::update(Context& c, std::int64_t step) {
  const Context::Scope scope(c, "update");
  c.gather("update", [&] {
    optimizer_.update(c, schedule_.factor(step));
    if (guide_ && (wants_states(step) || wants_logits(step))) guide_->update(c, step);
  });
}

void TrainStep::explain_non_finite(const Micro& m) {
  HeapAllocator heap(memory_.exec().device);
  Context checking(memory_.exec(), heap);
  checking.check_finite(true);
  micro_step(checking, m, nullptr);
  throw Error("the loss is not finite, although every op's output is");
}

}  // namespace cald
