#include "train/run_directory.h"

#include <filesystem>

#include "data/json_text.h"
#include "train/option_io.h"

namespace cald {
namespace {

namespace fs = std::filesystem;

void require_same_recipe(const RunOptions& options, const std::string& path) {
  const nlohmann::json before = read_json_object(path);
  const nlohmann::json now = options_to_json(options);
  for (const auto& [key, value] : now.items()) {
    if (key == "resume" || key == "threads" || key == "output") continue;
    if (!before.contains(key) || before[key] != value)
      throw usage_error("--resume: the run was begun with " + key + " = " +
                        (before.contains(key) ? before[key].dump() : "its default") + ", now it is " + value.dump());
  }
}

}  // namespace

RunDirectory::RunDirectory(const RunOptions& o) : path_(o.output) {
  const std::string recipe = path_ + "/recipe.json";
  const bool exists = fs::exists(recipe);
  if (exists && !o.resume)
    throw usage_error("--output " + path_ +
                      " holds a run already: --resume goes on with it, or choose another directory");
  if (exists) require_same_recipe(o, recipe);
  make_directories(path_);
  if (!exists) write_file_atomically(recipe, options_to_json(o).dump(2) + "\n");
  recover_directory(checkpoint());
  metrics_ = std::make_unique<AppendFile>(path_ + "/metrics.jsonl");
  timing_ = std::make_unique<AppendFile>(path_ + "/timing.jsonl");
}

void RunDirectory::write_json(const std::string& name, const nlohmann::json& content) {
  write_file_atomically(path_ + "/" + name, content.dump(1) + "\n");
}

void RunDirectory::write_state(const std::string& staging, const RunState& s) {
  metrics_->sync();
  timing_->sync();
  const nlohmann::json j = {{"step", s.step},
                            {"best_accuracy", s.best_accuracy},
                            {"best_step", s.best_step},
                            {"metrics_bytes", metrics_->size()},
                            {"timing_bytes", timing_->size()}};
  write_file_atomically(staging + "/state.json", j.dump(1) + "\n");
}

/// "elapsed" of timing.jsonl's last line; 0 if there is none.
double RunDirectory::last_time() const {
  std::string lines = read_text_file(timing_->path(), std::size_t{1} << 32);
  if (lines.empty()) return 0;
  lines.pop_back();  // the line feed at the end
  const nlohmann::json last = parse_json(timing_->path(), std::string_view(lines).substr(lines.rfind('\n') + 1));
  return last.at("elapsed").get<double>();
}

std::optional<RunState> RunDirectory::restore() {
  const std::string path = checkpoint() + "/state.json";
  if (!fs::exists(path)) {
    metrics_->truncate(0);
    timing_->truncate(0);
    return std::nullopt;
  }
  const nlohmann::json j = read_json_object(path);
  try {
    metrics_->truncate(j.at("metrics_bytes").get<std::uint64_t>());
    timing_->truncate(j.at("timing_bytes").get<std::uint64_t>());
    return RunState{j.at("step").get<std::int64_t>(), j.at("best_accuracy").get<double>(),
                    j.at("best_step").get<std::int64_t>(), last_time()};
  } catch (const nlohmann::json::exception& e) {
    throw data_error(path, json_error_text(e.what()));
  }
}

}  // namespace cald
