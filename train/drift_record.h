// The drift of a fine-tuning run as it goes on, and its waypoints at equal drift.
#pragma once
#include <optional>

#include "train/drift.h"
#include "train/run_directory.h"

namespace cald {

/// Steps at which a run of `total` steps measures its drift: 0, 1, 2, 4, 8, ... and the end. With `spread` > 0 also the
/// ends of so many equal parts of the run.
bool measures_drift_at(std::int64_t step, std::int64_t total, std::int64_t spread);

/// Which of the measured models are kept until the end, from which waypoints at equal drift are chosen: at most `most`,
/// the last measured one among them. `drift` is that of every measurement so far, the start (0) included. Each model
/// too many costs that one whose neighbours lie nearest together. Indices of measurements, in their order.
std::vector<std::size_t> kept_candidates(const std::vector<double>& drift, std::size_t most);

/// Of the candidates' drifts, `count` in their order that lie nearest (in squares) to equal steps of drift; the last is
/// the last. Indices of candidates. Error if there are fewer than `count`.
std::vector<std::size_t> equal_drift(const std::vector<double>& drift, std::int64_t count);

/// A measurement is a line of metrics.jsonl, so that a resumed run goes on from the checkpoint's. Candidates lie in
/// RUN/candidates/STEP, at most twice as many as waypoints; finish() moves the chosen ones to RUN/waypoints.
class DriftRecord {
 public:
  /// `start` is the model at step 0, and `model` refers to it for the whole run.
  DriftRecord(const RunOptions& options, const Encoder& model, const EncodedTask& dev, std::int64_t total,
              const std::string& tokenizer_from, PlannedMemory& memory, Allocator& heap);

  void plan(PlannedMemory& memory) const { meter_.plan(model_, memory); }
  /// Reads back what the run has measured before it was interrupted.
  void restore(const RunDirectory& directory);
  /// After `steps_done` steps: measures where that is due.
  void measure(std::int64_t steps_done, RunDirectory& directory);
  /// After the run's last checkpoint. May be repeated.
  void finish(RunDirectory& directory) const;

 private:
  bool keeps_waypoints() const { return options_.waypoint_spacing == Spacing::drift && options_.keep_waypoints > 0; }
  std::size_t most_candidates() const { return 2 * static_cast<std::size_t>(options_.keep_waypoints); }
  std::string candidate(const RunDirectory& directory, std::size_t measurement) const;

  const RunOptions& options_;
  const Encoder& model_;
  DriftMeter meter_;
  std::int64_t total_;
  std::string tokenizer_from_;
  DriftCurve curve_;
};

}  // namespace cald
