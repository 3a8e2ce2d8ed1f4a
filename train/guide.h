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
  std::int64_t step;       ///< optimizer step, from 0
  bool states, logits;     ///< what the loss will use
  double share;            ///< of the micro-batch in the step
  std::int64_t recompute;  ///< layers of which a teacher that learns keeps the input alone
};

/// Bytes of a teacher's weights. Those of a teacher that can only be copied are no matter of choice, and 0 here.
struct TeacherWeights {
  bool can_be_mapped = false, are_mapped = false;
  std::size_t if_copied = 0, if_mapped = 0;
  std::size_t taken = 0;  ///< now, from the allocator
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
  /// Where a frozen teacher's weights lie and what they take: in memory, or in their files but for the part that is
  /// read (see MappedWeights).
  virtual TeacherWeights weights() const { return {}; }
  /// Copies the weights into memory, should they lie in their files.
  virtual void copy_weights() {}
  /// Of a teacher that learns: the copies of its weights for products, see ParameterSet.
  virtual std::size_t copy_bytes() const { return 0; }
  virtual void keep_copies() {}
  /// Bytes of the moments of a teacher that learns.
  virtual std::size_t moment_bytes() const { return 0; }
  /// After the student's update.
  virtual void update(Context& /*c*/, std::int64_t /*step*/) {}

  /// The teacher's state that a checkpoint must hold, as files in `directory`.
  virtual void save(const std::string& /*directory*/) const {}
  virtual void load(const std::string& /*directory*/) {}
};

/// The number of the waypoint (from 0) that guides step `step`: phases of total / count steps, the last takes the rest.
std::int64_t waypoint_at(std::int64_t step, std::int64_t total, std::int64_t count);

/// The guide of the options' mode; null for finetune and unguided. `source` is MODEL's directory. A frozen teacher's
/// weights lie in their files if options.map_teacher says so, or where a memory budget may (see Trainer::fit).
std::unique_ptr<Guide> make_guide(const RunOptions& options, const ModelDir& source,
                                  const LearningRateSchedule& schedule, const EncoderConfig& student, Allocator& memory,
                                  const Exec& exec);

}  // namespace cald
