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
  const auto text = [](const nlohmann::json& j, const std::string& key) {
    return j.contains(key) ? j[key].dump() : "not given";
  };
  for (const nlohmann::json* keys : {&now, &before})
    for (const auto& [key, value] : keys->items()) {
      if (key == "resume" || key == "threads" || key == "output") continue;
      if (text(before, key) != text(now, key))
        throw usage_error("--resume: the run was begun with " + key + " = " + text(before, key) + ", now it is " +
                          text(now, key));
    }
}

/// What left neither a checkpoint nor a model is no run.
bool is_run(const std::string& directory) {
  const auto has = [&](const char* part) { return fs::exists(directory + part); };
  return has("/recipe.json") && (has("/checkpoint/state.json") || has("/model") || has("/waypoints"));
}

void require_same_data(const nlohmann::json& before, const DataMarks& now) {
  for (const auto& [key, mark] : now) {
    const nlohmann::json& was = before.at(key);
    const auto examples = was.at("examples").get<std::int64_t>();
    if (examples != mark.examples)
      throw usage_error("--resume: " + mark.path + " has " + std::to_string(mark.examples) +
                        " examples, but the run was begun with " + std::to_string(examples) + " (" + key + ")");
    if (was.at("fingerprint").get<std::uint64_t>() != mark.fingerprint)
      throw usage_error("--resume: " + mark.path + " does not hold the examples that the run was begun with (" + key +
                        ")");
  }
}

}  // namespace

bool keep_memory_choice(RunOptions& o) {
  if (!o.resume || o.memory_budget.empty() || !is_run(o.output)) return false;
  const std::string recipe = o.output + "/recipe.json";
  const nlohmann::json begun = read_json_object(recipe);
  nlohmann::json chosen = nlohmann::json::object();
  for (const auto& [key, value] : begun.items())
    if (key == "recompute" || key == "micro-batches" || key == "map-teacher") chosen[key] = value;
  options_from_json(o, chosen, recipe);
  return true;
}

bool holds_run(const RunOptions& o) {
  recover_directory(o.output + "/checkpoint");
  if (!is_run(o.output)) return false;
  if (!o.resume)
    throw usage_error("--output " + o.output +
                      " holds a run already: --resume goes on with it, or choose another directory");
  require_same_recipe(o, o.output + "/recipe.json");
  return true;
}

RunDirectory::RunDirectory(const RunOptions& o) : path_(o.output) {
  const bool exists = holds_run(o);
  make_directories(path_);
  if (!exists) write_file_atomically(path_ + "/recipe.json", options_to_json(o).dump(2) + "\n");
  metrics_ = std::make_unique<AppendFile>(path_ + "/metrics.jsonl");
  timing_ = std::make_unique<AppendFile>(path_ + "/timing.jsonl");
}

bool RunDirectory::has_checkpoint() const { return fs::exists(checkpoint() + "/state.json"); }

void RunDirectory::write_json(const std::string& name, const nlohmann::json& content) {
  write_file_atomically(path_ + "/" + name, content.dump(1) + "\n");
}

void RunDirectory::write_state(const std::string& staging, const RunState& s, const DataMarks& data) {
  metrics_->sync();
  timing_->sync();
  nlohmann::json marks;
  for (const auto& [key, mark] : data) marks[key] = {{"examples", mark.examples}, {"fingerprint", mark.fingerprint}};
  const nlohmann::json j = {{"step", s.step},
                            {"best_accuracy", s.best_accuracy},
                            {"best_step", s.best_step},
                            {"metrics_bytes", metrics_->size()},
                            {"timing_bytes", timing_->size()},
                            {"data", marks}};
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

std::optional<RunState> RunDirectory::restore(const DataMarks& data) {
  if (!has_checkpoint()) {
    metrics_->truncate(0);
    timing_->truncate(0);
    return std::nullopt;
  }
  const std::string path = checkpoint() + "/state.json";
  const nlohmann::json j = read_json_object(path);
  try {
    require_same_data(j.at("data"), data);
    metrics_->truncate(j.at("metrics_bytes").get<std::uint64_t>());
    timing_->truncate(j.at("timing_bytes").get<std::uint64_t>());
    return RunState{j.at("step").get<std::int64_t>(), j.at("best_accuracy").get<double>(),
                    j.at("best_step").get<std::int64_t>(), last_time()};
  } catch (const nlohmann::json::exception& e) {
    throw data_error(path, json_error_text(e.what()));
  }
}

std::vector<std::string> list_waypoints(const std::string& run) {
  std::vector<std::string> found;
  for (int i = 1;; ++i) {
    const std::string at = run + "/waypoints/" + std::to_string(i);
    if (!fs::exists(at + "/config.json")) break;
    found.push_back(at);
  }
  if (found.empty())
    throw data_error(run, "has no waypoints/1; run 'cald finetune ... --keep-waypoints N --output " + run + "' first");
  const std::string recipe = run + "/recipe.json";
  if (!fs::exists(recipe)) return found;  // waypoints that were put together by hand
  const std::int64_t wanted = read_json_object(recipe).value("keep-waypoints", std::int64_t{0});
  if (wanted > static_cast<std::int64_t>(found.size()))
    throw data_error(run, "has " + std::to_string(found.size()) + " of its " + std::to_string(wanted) +
                              " waypoints: the run has not ended");
  return found;
}

}  // namespace cald
