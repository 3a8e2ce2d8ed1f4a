#include "train/train_step.h"

#include <cmath>
#include <set>

#include "kernels/transfer.h"

namespace cald {
namespace {

struct NonFiniteLoss {};

constexpr std::uint32_t kStudentStream = 0;

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
  optimizer_.clear_gradients();
  if (guide_) guide_->clear_gradients();
}

void TrainStep::plan(std::int64_t batch, std::int64_t seq) {
  // The kind of a step changes at the hybrid stop and with the teacher's interval, and nowhere else.
  std::set<std::string> seen;
  for (const std::int64_t from : {std::int64_t{0}, hybrid_stop_})
    for (std::int64_t step = from; step < std::min(from + options_.teacher_interval, schedule_.steps); ++step) {
      if (!seen.insert(kind(step)).second) continue;
      const Micro micro{step, batch, seq, nullptr, 1};
      clear_gradients();  // a shape-only run also marks gradients as begun
      for (int i = 0; i < std::min<std::int64_t>(options_.accumulate, 2); ++i)
        memory_.plan(micro_key(step, batch, seq, i > 0), [&](Context& c) { micro_step(c, micro, nullptr); });
      memory_.plan({"update" + kind(step), 0, 0}, [&](Context& c) { update(c, step); });
    }
}

StepLosses TrainStep::run(std::int64_t step, const std::vector<TokenBatch>& micro_batches) {
  for (const TokenBatch& b : micro_batches) plan(b.batch, b.seq);
  if (memory_.observer()) memory_.observer()->begin_step(step + 1);
  clear_gradients();
  if (wants_states(step) || wants_logits(step)) guide_->begin_step(step);
  StepLosses losses;
  for (const TokenBatch& b : micro_batches) {
    const Micro m{step, b.batch, b.seq, &b, 1.0 / static_cast<double>(micro_batches.size())};
    try {
      memory_.run(micro_key(step, b.batch, b.seq, &b != &micro_batches.front()),
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
  const LabelledInput in = make_input(c, m.batch, m.seq, m.host, {student_.config().family, student_.config().pad_id});
  Guidance guidance;
  std::optional<Tensor> teacher_ce;
  if (wants_states(m.step) || wants_logits(m.step))
    guidance = guide_->guide(c, in, {m.step, wants_states(m.step), wants_logits(m.step), m.share}, teacher_ce);

  const Context::Scope scope(c, "student");
  const bool drops = !options_.dropout || *options_.dropout > 0;
  const DropoutPlan dropout{drops, options_.dropout ? static_cast<float>(*options_.dropout) : -1.0f, options_.seed,
                            static_cast<std::uint32_t>(m.step), kStudentStream};
  Tape tape(c);
  EncoderOutput out = student_.forward(tape, in.encoder, dropout, wants_states(m.step));
  LossTerms terms = cald_loss(tape, out, guidance, in.labels, in.encoder.mask, weights_, m.share);
  out = {};
  guidance = {};
  if (losses && !c.meta()) read_losses(c, terms, teacher_ce, m, *losses);
  const Tensor total = terms.total;
  terms = {};
  if (!c.checks_finite()) tape.backward(total);
}

void TrainStep::read_losses(Context& c, const LossTerms& terms, const std::optional<Tensor>& teacher_ce, const Micro& m,
                            StepLosses& into) const {
  const auto value = [&](const Tensor& t) {
    float f = 0;
    c.launch(Download{t, &f});
    if (!std::isfinite(f)) throw NonFiniteLoss{};
    return static_cast<double>(f);
  };
  const auto add = [&](std::optional<double>& sum, const Tensor& t) {
    if (t) sum = sum.value_or(0) + m.share * value(t);
  };
  into.total += value(terms.total);
  add(into.ce, terms.ce);
  add(into.kd, terms.kd);
  add(into.ld, terms.ld);
  if (teacher_ce) add(into.teacher_ce, *teacher_ce);
  into.ld_by_state.resize(terms.ld_by_state.size());
  for (std::size_t i = 0; i < terms.ld_by_state.size(); ++i)
    into.ld_by_state[i] += m.share * value(terms.ld_by_state[i]);
}

void TrainStep::update(Context& c, std::int64_t step) {
  const Context::Scope scope(c, "update");
  optimizer_.update(c, schedule_.factor(step));
  if (guide_ && (wants_states(step) || wants_logits(step))) guide_->update(c, step);
}

void TrainStep::explain_non_finite(const Micro& m) {
  HeapAllocator heap;
  Context checking(memory_.exec(), heap);
  checking.check_finite(true);
  micro_step(checking, m, nullptr);
  throw Error("the loss is not finite, although every op's output is");
}

}  // namespace cald
