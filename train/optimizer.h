// AdamW over a model's parameters, with its learning-rate schedule.
#pragma once
#include <string>
#include <vector>

#include "engine/context.h"
#include "engine/parameter.h"
#include "kernels/optimizer.h"
#include "train/options.h"

namespace cald {

/// The learning rate's factor over a run of `steps` steps.
struct LearningRateSchedule {
  Schedule kind = Schedule::linear;
  std::int64_t steps = 1, warmup = 0;
  double floor = 0.0;

  /// At step t, counted from 0: (t + 1) / warmup while t < warmup, then by kind from 1 on.
  double factor(std::int64_t t) const;
};

class Optimizer {
 public:
  /// Takes both moments from `memory`, zeroed. `new_rate` is the peak rate of parameters with is_new.
  Optimizer(ParameterSet& parameters, Allocator& memory, const RunOptions& options, double rate, double new_rate);

  /// One update with the gradients that are there (has_grad); rates are the peaks times `factor`. Parameters without a
  /// gradient stay as they are.
  void update(Context& c, double factor);
  /// The update of one parameter in the midst of the backward, its gradient being complete; update() counts the step.
  /// Not with clipping, which needs all gradients at once.
  void update_now(Context& c, const Parameter& p, double factor);
  double rate() const { return rate_; }
  /// Bytes of both moments of all parameters.
  std::size_t moment_bytes() const;
  std::int64_t updates() const { return updates_; }

  /// Moments and the number of updates to and from a safetensors file.
  void save(const std::string& path) const;
  void load(const std::string& path);

 private:
  AdamWSlot slot(const Parameter& p, double factor) const;
  /// Sets moved_ of a table from its moments: rows that never had a gradient have none.
  void note_moved(const Parameter& p);

  ParameterSet& parameters_;
  double rate_, new_rate_, weight_decay_, beta1_, beta2_, epsilon_, clip_;
  DType moments_;
  std::uint64_t seed_;  // of the moments' rounding
  std::vector<Tensor> m_, v_;
  std::vector<Tensor> moved_;  // of tables, see AdamWSlot
  Tensor norm_;
  std::vector<AdamWSlot> slots_;
  std::int64_t updates_ = 0;
};

}  // namespace cald
