// Training runs of the golden files, and small trainers for tests.
#pragma once
#include <gtest/gtest.h>

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

/// A progress that says nothing.
inline Progress quiet() {
  static std::FILE* const null = std::fopen("/dev/null", "w");
  return Progress(null);
}

inline Outcome train(const RunOptions& o, LaunchObserver* observer = nullptr, HeapAllocator* heap = nullptr) {
  HeapAllocator own(exec_of(o).device);
  Progress progress = quiet();
  Trainer trainer(o, heap ? *heap : own, progress);
  trainer.plan();
  trainer.observe(observer);
  const std::atomic<bool> stop{false};
  return trainer.run(stop);
}

}  // namespace cald
