// What a run directory holds, read for reports. Everything but recipe.json may be missing.
#pragma once
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "train/drift.h"

namespace cald {

/// (step, value), in the order of the file.
using Points = std::vector<std::pair<double, double>>;

/// Evaluation on the dev data.
struct EvalRecord {
  double step = 0;
  double accuracy = 0;         ///< 0..1
  std::optional<double> loss;  ///< mean over the examples
  std::optional<double> examples;
};

struct TimingRecord {
  double step = 0;
  double seconds = 0;
  double tokens = 0;         ///< of the texts
  double padded_tokens = 0;  ///< positions that were computed, pads included
};

/// plan.json: the memory plan, all sizes in bytes.
struct PlanData {
  std::vector<std::pair<std::string, double>> bytes;  ///< by class, in the file's order
  double peak = 0;
  /// Activations and workspace: what is reserved, the least that any plan needs, what the run has used.
  std::optional<double> arena, lower_bound, measured_arena;
  std::string peak_op, peak_phase;
  std::vector<double> timeline;  ///< bytes in use over the events of the step
  std::optional<double> resident_peak;
};

/// cost.json.
struct CostData {
  std::optional<double> seconds_total, seconds_per_step, tokens_per_second;
  std::optional<double> peak_resident_bytes;
};

/// conversion.json: tensors of the student by where they came from.
struct ConversionData {
  std::int64_t copied = 0, mapped = 0;
  std::vector<std::string> created, dropped;
};

struct RunData {
  std::string directory;
  std::string name;  ///< the directory's last part
  nlohmann::ordered_json recipe;
  bool has_metrics = false, has_timing = false;
  std::map<std::string, Points> metrics;  ///< by key of metrics.jsonl: loss, ce, kd, ld, learning_rate, ...
  std::vector<Points> ld_by_state;
  std::vector<EvalRecord> evals;
  DriftCurve drift;
  std::vector<TimingRecord> timing;
  std::optional<PlanData> plan;
  std::optional<CostData> cost;
  std::optional<ConversionData> conversion;

  /// The evaluation with the highest accuracy, the first of equals; null if there is none.
  const EvalRecord* best() const;
  /// A setting of the recipe as text; empty if it is not there.
  std::string setting(const std::string& key) const;
  /// finetune, unguided, ..., or "hybrid" for a guided mode with a hybrid stop.
  std::string method() const;
  double last_step() const;
};

/// Error if there is no such directory.
void require_directory(const std::string& directory);

/// Reads `directory`. Errors name the file, in .jsonl files its line; a last line without its line feed that does not
/// parse (the run was killed while it wrote) is ignored.
RunData read_run(const std::string& directory);

}  // namespace cald
