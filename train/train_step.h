// One optimizer step: the guide's pass, the student's forward and backward, and the update, in planned memory.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "train/guide.h"
#include "train/planned_memory.h"
#include "train/step_range.h"

namespace cald {

/// What one step's losses were, averaged over its micro-batches. A term that is off is absent.
struct StepLosses {
  double total = 0;
  std::optional<double> ce, kd, ld, teacher_ce;
  std::vector<double> ld_by_state;
};

/// The losses of a micro-batch; a term that is off is absent.
struct LossValues {
  std::optional<float> total, ce, kd, ld, teacher_ce;
  std::vector<float> ld_by_state;
};

class TrainStep {
 public:
  /// True if gradients may be used and dropped one by one: nothing then needs all of them, or a sum over micro-batches.
  static bool updates_early(const RunOptions& o) { return o.clip == 0 && o.accumulate == 1 && o.micro_batches == 1; }

  /// All references outlive the step. `guide` is null where nobody teaches; `hybrid_stop` is the step from which the
  /// guidance named by options.hybrid_stop_terms is off (total_steps if it never is).
  TrainStep(const RunOptions& options, Encoder& student, Optimizer& optimizer, Guide* guide,
            const LearningRateSchedule& schedule, PlannedMemory& memory);

  /// Plans every kind of step that the run holds for micro-batches of this shape.
  void plan(std::int64_t batch, std::int64_t seq);

  /// Step `step` (from 0) over its batches. A loss that is not finite stops it before any backward: the Error
  /// names the first op that made such a value, and no parameter has changed.
  StepLosses run(std::int64_t step, const std::vector<TokenBatch>& batches);

  /// A profiler records these steps, counted from 1 at the first that this object runs. Their launches are given to the
  /// device one by one, so that each is within the ranges that name it.
  void profile(const StepRange& steps) { profiled_ = steps; }

 private:
  /// A micro-batch and its part in the step's means: over examples, and over what L_LD counts.
  struct Micro {
    std::int64_t step, batch, seq;
    const TokenBatch* host;  ///< null on the meta device
    double share, ld_share;
  };

  bool wants_states(std::int64_t step) const;
  bool wants_logits(std::int64_t step) const;
  /// Names what distinguishes the memory of one step from another's.
  std::string kind(std::int64_t step) const;
  /// The plan of a micro-batch. Those behind the first of a step add to its gradients, for which a matrix product may
  /// need other scratch memory than for setting them.
  PlanKey micro_key(std::int64_t step, std::int64_t batch, std::int64_t seq, bool adds) const;
  StepLosses run_planned(std::int64_t step, const std::vector<TokenBatch>& batches);
  void clear_gradients();
  /// The batches cut into options.micro_batches parts each, with their shares.
  std::vector<Micro> cut(std::int64_t step, const std::vector<TokenBatch>& batches,
                         std::vector<TokenBatch>& parts) const;
  void micro_step(Context& c, const Micro& m, StepLosses* losses);
  /// Inputs, the guide's pass and the student's; the tape holds what the backward needs. With `values` their losses are
  /// on the way to the host.
  Tensor forward(Context& c, Tape& tape, const Micro& m, LossValues* values);
  void add_losses(const LossValues& values, const Micro& m, StepLosses& into) const;
  void update(Context& c, std::int64_t step);
  [[noreturn]] void explain_non_finite(const Micro& m);

  const RunOptions& options_;
  Encoder& student_;
  Optimizer& optimizer_;
  Guide* guide_;
  LearningRateSchedule schedule_;
  LossWeights weights_;
  PlannedMemory& memory_;
  std::int64_t hybrid_stop_;
  StepRange profiled_{0, 0};
  std::int64_t begun_ = 0;
};

}  // namespace cald
