// The teachers of the CALD modes, behind one interface.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "data/model_dir.h"
#include "train/batch_input.h"
#include "train/cald_loss.h"
#include "train/optimizer.h"

namespace cald {

/// What a guide has to know of the micro-batch at hand.
struct GuideStep {
  std::int64_t step;    ///< optimizer step, from 0
  bool states, logits;  ///< what the loss will use
  double share;         ///< of the micro-batch in the step
};

class Guide {
 public:
  virtual ~Guide() = default;

  /// Before the first micro-batch of a step; outside the planned memory.
  virtual void begin_step(std::int64_t /*step*/) {}
  /// Forgets the teacher's own gradients, where it has some: the next backward sets instead of adding.
  virtual void clear_gradients() {}
  /// The teacher's pass over one micro-batch. `ce` is set where the teacher trains on the task itself.
  virtual Guidance guide(Context& c, const LabelledInput& in, const GuideStep& at, std::optional<Tensor>& ce) = 0;
  /// Names what the pass at this step takes memory for, beyond what GuideStep says; part of the plan's key.
  virtual std::string phase(std::int64_t /*step*/) const { return "frozen"; }
  /// After the student's update.
  virtual void update(Context& /*c*/, std::int64_t /*step*/) {}

  /// The teacher's state that a checkpoint must hold, as files in `directory`.
  virtual void save(const std::string& /*directory*/) const {}
  virtual void load(const std::string& /*directory*/) {}
};

/// The number of the waypoint (from 0) that guides step `step`: phases of total / count steps, the last takes the rest.
std::int64_t waypoint_at(std::int64_t step, std::int64_t total, std::int64_t count);

/// The guide of the options' mode; null for finetune and unguided. `source` is MODEL's directory.
std::unique_ptr<Guide> make_guide(const RunOptions& options, const ModelDir& source,
                                  const LearningRateSchedule& schedule, const EncoderConfig& student,
                                  Allocator& memory);

}  // namespace cald
