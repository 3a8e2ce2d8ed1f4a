// Reading a run directory: every number is looked at before it is used, since the files may come from elsewhere.
#include "app/run_data.h"

#include <algorithm>
#include <filesystem>
#include <functional>

#include "data/atomic_file.h"
#include "data/json_text.h"
#include "engine/base/error.h"

namespace cald {
using nlohmann::json;
using nlohmann::ordered_json;

namespace {

constexpr std::size_t kMaxMetricsBytes = std::size_t{4} << 30;

double number(const json& j, const std::string& key, const std::string& where) {
  const auto it = j.find(key);
  if (it == j.end()) throw data_error(where, "lacks the key '" + key + "', wanted a number");
  if (!it->is_number()) throw data_error(where, "key '" + key + "' is " + it->type_name() + ", wanted a number");
  return it->get<double>();
}

/// Nothing for a missing key and for null, which stands for a value that was not finite.
std::optional<double> maybe_number(const json& j, const std::string& key, const std::string& where) {
  if (!j.contains(key) || j[key].is_null()) return std::nullopt;
  return number(j, key, where);
}

std::string maybe_text(const json& j, const std::string& key, const std::string& where) {
  const auto it = j.find(key);
  if (it == j.end() || it->is_null()) return "";
  if (!it->is_string()) throw data_error(where, "key '" + key + "' is " + it->type_name() + ", wanted a text");
  return it->get<std::string>();
}

std::vector<std::string> texts(const json& j, const std::string& key, const std::string& where) {
  std::vector<std::string> all;
  if (!j.contains(key)) return all;
  if (!j[key].is_array()) throw data_error(where, "key '" + key + "' wanted a list of names");
  for (const json& item : j[key]) {
    if (!item.is_string()) throw data_error(where, "key '" + key + "' wanted a list of names");
    all.push_back(item.get<std::string>());
  }
  return all;
}

std::vector<double> numbers(const json& list, const std::string& key, const std::string& where) {
  if (!list.is_array()) throw data_error(where, "key '" + key + "' wanted a list of numbers");
  std::vector<double> all;
  for (const json& item : list) {
    if (!item.is_number()) throw data_error(where, "key '" + key + "' wanted a list of numbers");
    all.push_back(item.get<double>());
  }
  return all;
}

bool exists(const std::string& path) { return std::filesystem::exists(path); }

/// Calls f(object, "path:line") for each line.
void for_each_line(const std::string& path, const std::function<void(const json&, const std::string&)>& f) {
  const std::string text = read_text_file(path, kMaxMetricsBytes);
  std::size_t at = 0, line = 1;
  for (; at < text.size(); ++line) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string where = path + ":" + std::to_string(line);
    json j;
    try {
      j = parse_json(where, std::string_view(text).substr(at, end - at));
    } catch (const Error&) {
      if (end == text.size()) return;
      throw;
    }
    if (!j.is_object()) throw data_error(where, std::string("is ") + j.type_name() + ", wanted a JSON object");
    f(j, where);
    at = end + 1;
  }
}

void read_step_line(RunData& run, const json& j, const std::string& where) {
  const double step = number(j, "step", where);
  if (const auto eval = j.find("eval"); eval != j.end()) {
    if (!eval->is_object()) throw data_error(where, "key 'eval' wanted a JSON object");
    run.evals.push_back({step, number(*eval, "accuracy", where), maybe_number(*eval, "loss", where),
                         maybe_number(*eval, "examples", where)});
    return;
  }
  if (j.contains("drift")) return;  // read_drift's
  for (const auto& [key, value] : j.items())
    if (key != "step" && value.is_number()) run.metrics[key].emplace_back(step, value.get<double>());
  if (const auto states = j.find("ld_by_state"); states != j.end()) {
    const auto values = numbers(*states, "ld_by_state", where);
    run.ld_by_state.resize(std::max(run.ld_by_state.size(), values.size()));
    for (std::size_t i = 0; i < values.size(); ++i) run.ld_by_state[i].emplace_back(step, values[i]);
  }
}

PlanData read_plan(const std::string& path) {
  const json j = read_json_object(path);
  PlanData plan;
  const auto bytes = j.find("bytes");
  if (bytes == j.end() || !bytes->is_object()) throw data_error(path, "key 'bytes' wanted a JSON object of sizes");
  // The order in which a reader thinks of them; unknown classes follow.
  const std::vector<std::string> order{"weights", "teacher", "gradients", "optimizer", "activations", "workspace"};
  for (const std::string& name : order)
    if (bytes->contains(name)) plan.bytes.emplace_back(name, number(*bytes, name, path));
  for (const auto& [name, value] : bytes->items())
    if (std::find(order.begin(), order.end(), name) == order.end())
      plan.bytes.emplace_back(name, number(*bytes, name, path));
  plan.peak = number(j, "peak_bytes", path);
  plan.arena = maybe_number(j, "arena_bytes", path);
  plan.lower_bound = maybe_number(j, "lower_bound_bytes", path);
  plan.measured_arena = maybe_number(j, "measured_arena_bytes", path);
  plan.peak_op = maybe_text(j, "peak_op", path);
  plan.peak_phase = maybe_text(j, "peak_phase", path);
  if (j.contains("timeline")) plan.timeline = numbers(j["timeline"], "timeline", path);
  plan.resident_peak = maybe_number(j, "resident_peak_bytes", path);
  return plan;
}

CostData read_cost(const std::string& path) {
  const json j = read_json_object(path);
  return {maybe_number(j, "seconds_total", path), maybe_number(j, "seconds_per_step", path),
          maybe_number(j, "tokens_per_second", path), maybe_number(j, "peak_resident_bytes", path)};
}

ConversionData read_conversion(const std::string& path) {
  const json j = read_json_object(path);
  return {static_cast<std::int64_t>(number(j, "copied", path)), static_cast<std::int64_t>(number(j, "mapped", path)),
          texts(j, "new", path), texts(j, "dropped", path)};
}

std::string last_part(const std::string& directory) {
  auto path = std::filesystem::path(directory).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename() == "." || path.empty() ? directory : path.filename().string();
}

}  // namespace

const EvalRecord* RunData::best() const {
  const auto it = std::max_element(evals.begin(), evals.end(),
                                   [](const EvalRecord& a, const EvalRecord& b) { return a.accuracy < b.accuracy; });
  return it == evals.end() ? nullptr : &*it;
}

std::string RunData::setting(const std::string& key) const {
  const auto it = recipe.find(key);
  if (it == recipe.end() || it->is_null()) return "";
  return it->is_string() ? it->get<std::string>() : it->dump();
}

std::string RunData::method() const {
  const std::string mode = setting("mode");
  if (!setting("hybrid-stop").empty()) return "hybrid";
  return mode.empty() ? "finetune" : mode;
}

double RunData::last_step() const {
  double last = 0;
  for (const auto& [key, points] : metrics)
    if (!points.empty()) last = std::max(last, points.back().first);
  for (const EvalRecord& e : evals) last = std::max(last, e.step);
  return last;
}

void require_directory(const std::string& directory) {
  if (!std::filesystem::is_directory(directory)) throw data_error(directory, "no such run directory");
}

RunData read_run(const std::string& directory) {
  require_directory(directory);
  RunData run;
  run.directory = directory;
  run.name = last_part(directory);
  const auto file = [&](const char* name) { return directory + "/" + name; };
  // Parsed twice: parse_json knows what is wrong, ordered_json keeps the visitor's order of the settings.
  const std::string recipe = file("recipe.json");
  read_json_object(recipe);
  run.recipe = ordered_json::parse(read_text_file(recipe, kMaxJsonBytes));
  run.has_metrics = exists(file("metrics.jsonl"));
  if (run.has_metrics)
    for_each_line(file("metrics.jsonl"), [&](const json& j, const std::string& w) { read_step_line(run, j, w); });
  run.drift = read_drift(directory);
  run.has_timing = exists(file("timing.jsonl"));
  if (run.has_timing)
    for_each_line(file("timing.jsonl"), [&](const json& j, const std::string& w) {
      run.timing.push_back({number(j, "step", w), number(j, "seconds", w), maybe_number(j, "tokens", w).value_or(0),
                            maybe_number(j, "padded_tokens", w).value_or(0)});
    });
  if (exists(file("plan.json"))) run.plan = read_plan(file("plan.json"));
  if (exists(file("cost.json"))) run.cost = read_cost(file("cost.json"));
  if (exists(file("conversion.json"))) run.conversion = read_conversion(file("conversion.json"));
  return run;
}

}  // namespace cald
