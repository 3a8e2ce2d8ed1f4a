// A run's directory: recipe, metrics, checkpoint, models.
//
//   recipe.json       the resolved options
//   metrics.jsonl     a line per step and per evaluation; no clock values, so that a resumed run's file is the same
//   timing.jsonl      seconds and tokens per step, and the seconds since the run began
//   checkpoint/       everything that the run needs to go on
//   model/            the result
//   waypoints/1..N/   models along a fine-tuning run
//   candidates/STEP/  models of which those at equal drift become waypoints; gone when the run has ended
#pragma once
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "data/atomic_file.h"
#include "train/options.h"

namespace cald {

/// What of a run's progress lies neither in tensors nor in the options.
struct RunState {
  std::int64_t step = 0;  ///< optimizer steps done
  double best_accuracy = -1;
  std::int64_t best_step = 0;
  double seconds = 0;  ///< wall time of the processes before this one; kept in timing.jsonl alone
};

/// What tells whether a run's data is still the same.
struct DataMark {
  std::string path;
  std::int64_t examples = 0;
  std::uint64_t fingerprint = 0;
};
/// By the key of the data: train, dev.
using DataMarks = std::map<std::string, DataMark>;

/// With resume and a memory budget, the options get what the budget chose when the run was begun; the estimates behind
/// a new choice need not be the same. False if there is no such run.
bool keep_memory_choice(RunOptions& options);

/// Whether a run is in options.output that is to go on. Error if one is there and resume is off, or if it was begun
/// with other options: the first key that differs is named. Only threads and resume may differ. What left neither a
/// checkpoint nor a model is no run.
bool holds_run(const RunOptions& options);

class RunDirectory {
 public:
  /// Makes the directory, or opens it if it holds a run. Errors: see holds_run.
  explicit RunDirectory(const RunOptions& options);

  const std::string& path() const { return path_; }
  std::string model() const { return path_ + "/model"; }
  std::string checkpoint() const { return path_ + "/checkpoint"; }
  bool has_checkpoint() const;
  std::string waypoint(std::int64_t number) const { return path_ + "/waypoints/" + std::to_string(number); }

  void metric(const nlohmann::ordered_json& line) { metrics_->append_line(line.dump()); }
  void timing(const nlohmann::ordered_json& line) { timing_->append_line(line.dump()); }
  void write_json(const std::string& name, const nlohmann::json& content);

  /// Adds state.json to the checkpoint's staging directory, with the files' present lengths.
  void write_state(const std::string& staging, const RunState& state, const DataMarks& data);
  /// The last checkpoint's state, after cutting metrics and timing back to it; nothing if there is no checkpoint.
  /// A usage error names the file that is not as it was at the checkpoint.
  std::optional<RunState> restore(const DataMarks& data);

 private:
  double last_time() const;

  std::string path_;
  std::unique_ptr<AppendFile> metrics_, timing_;
};

/// The directories RUN/waypoints/1, 2, ... of a run that was to keep waypoints. Error if there are none, or fewer than
/// its recipe says: the run has not ended.
std::vector<std::string> list_waypoints(const std::string& run);

}  // namespace cald
