#include "train/drift_record.h"

#include <cmath>
#include <filesystem>
#include <limits>

#include "train/model_io.h"

namespace cald {

bool measures_drift_at(std::int64_t step, std::int64_t total, std::int64_t spread) {
  if ((step & (step - 1)) == 0 || step == total) return true;
  for (std::int64_t i = 1; i < spread; ++i)
    if (step == total * i / spread) return true;
  return false;
}

std::vector<std::size_t> kept_candidates(const std::vector<double>& drift, std::size_t most) {
  std::vector<std::size_t> kept;  // the start is no candidate
  for (std::size_t next = 1; next < drift.size(); ++next) {
    kept.push_back(next);
    if (kept.size() <= most) continue;
    std::size_t least = 0;
    double least_gap = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i + 1 < kept.size(); ++i) {
      const double before = i == 0 ? drift[0] : drift[kept[i - 1]];
      const double gap = std::abs(drift[kept[i + 1]] - before);
      if (gap < least_gap) least = i, least_gap = gap;
    }
    kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(least));
  }
  return kept;
}

std::vector<std::size_t> equal_drift(const std::vector<double>& drift, std::int64_t count) {
  const auto n = static_cast<std::size_t>(count), m = drift.size();
  if (n < 1 || m < n)
    throw Error("waypoints at equal drift: " + std::to_string(m) + " models were kept, wanted " +
                std::to_string(count) + " or more");
  // cost[i][c]: least sum of squares with waypoint i at candidate c; from[i][c]: the candidate of waypoint i - 1.
  constexpr double kNever = std::numeric_limits<double>::infinity();
  std::vector<std::vector<double>> cost(n, std::vector<double>(m, kNever));
  std::vector<std::vector<std::size_t>> from(n, std::vector<std::size_t>(m, 0));
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t c = i; c < m; ++c) {
      const double off = drift[c] - drift.back() * static_cast<double>(i + 1) / static_cast<double>(n);
      double before = i == 0 ? 0 : kNever;
      for (std::size_t b = 0; i > 0 && b < c; ++b)
        if (cost[i - 1][b] < before) before = cost[i - 1][b], from[i][c] = b;
      cost[i][c] = before + off * off;
    }
  std::vector<std::size_t> chosen(n, m - 1);
  for (std::size_t i = n - 1; i > 0; --i) chosen[i - 1] = from[i][chosen[i]];
  return chosen;
}

DriftRecord::DriftRecord(const RunOptions& options, const Encoder& model, const EncodedTask& dev, std::int64_t total,
                         const std::string& tokenizer_from, PlannedMemory& memory, Allocator& heap)
    : options_(options),
      model_(model),
      meter_(DriftMeter::from_now(model, spaced_examples(dev, options.drift_inputs), options.eval_batch_size, memory,
                                  heap)),
      total_(total),
      tokenizer_from_(tokenizer_from) {}

void DriftRecord::restore(const RunDirectory& directory) {
  curve_ = read_drift(directory.path());
  curve_.total = total_;
}

std::string DriftRecord::candidate(const RunDirectory& directory, std::size_t measurement) const {
  return directory.path() + "/candidates/" + std::to_string(curve_.steps[measurement]);
}

void DriftRecord::measure(std::int64_t steps_done, RunDirectory& directory) {
  if (!measures_drift_at(steps_done, total_, keeps_waypoints() ? 2 * options_.keep_waypoints : 0)) return;
  if (!curve_.empty() && curve_.steps.back() >= steps_done) return;
  curve_.add(steps_done, meter_.measure(model_));
  directory.metric({{"step", steps_done}, {"of", total_}, {"drift", curve_.by_state.back()}});
  if (!keeps_waypoints() || steps_done == 0) return;
  save_model(model_, candidate(directory, curve_.steps.size() - 1), tokenizer_from_, options_.max_length);
  const std::vector<std::size_t> kept = kept_candidates(curve_.means(), most_candidates());
  for (std::size_t i = 1, k = 0; i < curve_.steps.size(); ++i) {
    if (k < kept.size() && kept[k] == i)
      ++k;
    else
      std::filesystem::remove_all(candidate(directory, i));
  }
}

void DriftRecord::finish(RunDirectory& directory) const {
  if (!keeps_waypoints()) return;
  const std::vector<double> drift = curve_.means();
  const std::vector<std::size_t> kept = kept_candidates(drift, most_candidates());
  std::vector<double> of_kept;
  for (const std::size_t i : kept) of_kept.push_back(drift[i]);
  std::int64_t number = 0;
  for (const std::size_t c : equal_drift(of_kept, options_.keep_waypoints)) {
    const std::string from = candidate(directory, kept[c]), to = directory.waypoint(++number);
    if (!std::filesystem::exists(from)) continue;  // moved by a process that was killed before its end
    make_directories(directory.path() + "/waypoints");
    std::filesystem::remove_all(to);
    std::filesystem::rename(from, to);
  }
  std::filesystem::remove_all(directory.path() + "/candidates");
}

}  // namespace cald
