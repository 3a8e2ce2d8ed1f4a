// Training runs of the golden files, and small trainers for tests.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/data/temp_folder.h"
#include "train/option_io.h"
#include "train/trainer.h"

namespace cald {

inline const std::string kGolden = std::string(CALD_SOURCE_DIR) + "/tests/golden/";

inline nlohmann::json read_golden(const std::string& name) {
  return nlohmann::json::parse(content_of(kGolden + "steps/" + name + ".json"));
}

/// The options of a golden run, its paths made absolute.
inline RunOptions golden_options(const nlohmann::json& golden, const std::string& output) {
  nlohmann::json j = golden.at("options");
  for (const char* path : {"train", "model", "teacher", "student", "waypoints"})
    if (j.contains(path)) j[path] = kGolden + j[path].get<std::string>();
  RunOptions o;
  options_from_json(o, j, "golden");
  o.output = output;
  o.threads = 2;
  resolve_preset(o);
  return o;
}

inline std::vector<nlohmann::json> read_lines(const std::string& path) {
  std::vector<nlohmann::json> lines;
  std::istringstream in(content_of(path));
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

/// In bf16 no two programs round at the same places: ours may be from PyTorch's autocast twice as far as that is from
/// f64, and as far from f64 as that is, twice.
inline void expect_losses_as_near_as_autocast(const nlohmann::json& golden, const std::vector<nlohmann::json>& lines) {
  ASSERT_EQ(lines.size(), 20u);
  for (const auto& [term, losses] : golden["bf16_losses"].items()) {
    const double tolerance = 2 * golden["bf16_distance"][term].get<double>();
    double farthest = 0;
    for (std::size_t step = 0; step < losses.size(); ++step) {
      const double got = lines[step].at(term).get<double>();
      for (const double want : {losses[step].get<double>(), golden["losses"][term][step].get<double>()}) {
        EXPECT_NEAR(got, want, tolerance * std::abs(want)) << term << " at step " << step + 1;
        farthest = std::max(farthest, std::abs(got / want - 1));
      }
    }
    EXPECT_GT(farthest, 1e-5) << term << " is exact to f32: bf16 was not used";
  }
}

/// A progress that says nothing.
inline Progress quiet() {
  static std::FILE* const null = std::fopen("/dev/null", "w");
  return Progress(null);
}

inline Outcome train(const RunOptions& o, LaunchObserver* observer = nullptr, HeapAllocator* heap = nullptr,
                     bool stop_at_once = false) {
  HeapAllocator own(exec_of(o).device);
  Progress progress = quiet();
  Trainer trainer(o, heap ? *heap : own, progress);
  trainer.plan();
  trainer.observe(observer);
  const std::atomic<bool> stop{stop_at_once};
  return trainer.run(stop);
}

/// What a run left.
struct Ran {
  std::string metrics, weights;
  std::vector<nlohmann::json> lines;
  std::size_t arena = 0;
};

/// Trains into `folder`.
inline Ran run_with(RunOptions o, const std::string& folder) {
  o.output = folder;
  HeapAllocator heap;
  Progress progress = quiet();
  Trainer trainer(o, heap, progress);
  trainer.plan();
  const std::atomic<bool> stop{false};
  trainer.run(stop);
  return {content_of(folder + "/metrics.jsonl"), content_of(folder + "/model/model.safetensors"),
          read_lines(folder + "/metrics.jsonl"), trainer.memory().bytes()};
}

/// One step of the run, and a checkpoint.
inline Outcome train_a_step(const RunOptions& o) { return train(o, nullptr, nullptr, true); }

}  // namespace cald
