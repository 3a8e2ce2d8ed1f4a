// How far hidden states move over a fine-tuning run, and what follows from it. For layer i the drift is the mean
// squared difference between the LayerNorm'd states now and at step 0, over the positions of fixed held-out inputs that
// are not pads.
#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "models/encoder.h"
#include "train/planned_memory.h"
#include "train/task.h"

namespace cald {

/// Measures the drift of a model from another, or from what it is now.
class DriftMeter {
 public:
  /// `start` outlives the meter.
  DriftMeter(const Encoder& start, EncodedTask inputs, std::int64_t batch_size, PlannedMemory& memory);
  /// The start is a copy of `model`'s present weights, taken from `heap`.
  static DriftMeter from_now(const Encoder& model, EncodedTask inputs, std::int64_t batch_size, PlannedMemory& memory,
                             Allocator& heap);

  /// Plans what every batch takes of `memory`. `model` has the start's shape.
  void plan(const Encoder& model, PlannedMemory& memory) const;
  /// The drift by state: 0 the embeddings' output, i the output of layer i.
  std::vector<double> measure(const Encoder& model);

 private:
  void forward_batch(Context& c, const Encoder& model, std::int64_t batch, std::int64_t seq, const TokenBatch* host,
                     std::vector<float>& drift) const;

  std::unique_ptr<Encoder> own_;
  const Encoder* start_;
  EncodedTask inputs_;
  std::vector<std::vector<std::int64_t>> batches_;
  PlannedMemory& memory_;
};

/// `count` examples of a task, evenly spaced over its file; all of them if it has no more.
EncodedTask spaced_examples(const EncodedTask& task, std::int64_t count);

/// The drift over a run, and what follows from it.
struct DriftCurve {
  std::vector<std::int64_t> steps;            ///< where it was measured; the first is 0
  std::vector<std::vector<double>> by_state;  ///< [measurement][state]
  std::int64_t total = 0;                     ///< steps of the whole run

  bool empty() const { return steps.empty(); }
  /// What follows from a drift is known where the run has ended.
  bool ended() const { return !empty() && steps.back() == total; }
  bool has_moved() const { return !empty() && mean(steps.size() - 1) > 0; }
  /// Adds a measurement; steps increase.
  void add(std::int64_t step, std::vector<double> drift);
  /// Mean over the layers; the embeddings' output is no layer.
  double mean(std::size_t measurement) const;
  std::vector<double> means() const;
  /// The step at which `share` of the final mean drift was first reached; straight lines between measurements. Error if
  /// there is no final drift.
  double step_of(double share) const;
  /// The share of the final mean drift that was reached within the first `part` of the steps.
  double share_within(double part) const;

  /// Over half of the drift within the first 5 % of the steps.
  bool is_sudden() const { return share_within(0.05) > 0.5; }
  /// The mode that suits: "hybrid" where the drift is sudden, else "waypoint".
  const char* mode() const { return is_sudden() ? "hybrid" : "waypoint"; }
  /// Where hybrid mode stops distilling: the share of the steps, in whole per cents, that nine tenths of the drift
  /// took. There the fine-tuned states are nearly reached and the task loss may go on alone.
  StepOrShare hybrid_stop() const;

  /// Without what follows where the run has not ended or nothing has moved.
  nlohmann::ordered_json json() const;
};

/// The drift that a run with --drift has recorded in its metrics.jsonl; empty if it has none.
DriftCurve read_drift(const std::string& run);

/// Fills in a hybrid-stop of auto from the drift of the run `drift-from`; without that key of the run that holds the
/// waypoints or the teacher. Afterwards hybrid-stop is a share and drift-from is empty. Error if there is no such run,
/// or if it has no drift, has not ended, or fine-tuned another model.
void settle_hybrid_stop(RunOptions& options);

}  // namespace cald
