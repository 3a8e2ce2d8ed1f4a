// What settings must satisfy, each by itself and together.
#include <cmath>
#include <string>

#include "engine/base/error.h"
#include "train/option_io.h"
#include "train/option_names.h"
#include "train/planned_memory.h"

namespace cald {

namespace {

/// Usage errors "KEY is VALUE, wanted ...".
class Checker {
 public:
  explicit Checker(const RunOptions& o) : o_(o) {}

  void want(bool holds, const char* key, const std::string& wanted) const {
    if (!holds) throw usage_error(std::string(key) + " is " + option_text(o_, key) + ", wanted " + wanted);
  }
  void at_least(double value, double least, const char* key, const std::string& least_text) const {
    want(value >= least, key, "at least " + least_text);
  }
  void between(double value, std::int64_t least, std::int64_t most, const char* key) const {
    want(value >= static_cast<double>(least) && value <= static_cast<double>(most), key,
         std::to_string(least) + " to " + std::to_string(most));
  }
  void positive(double value, const char* key) const { want(value > 0, key, "more than 0"); }
  template <class T>
  void at_least(const std::optional<T>& value, double least, const char* key, const std::string& least_text) const {
    if (value) at_least(static_cast<double>(*value), least, key, least_text);
  }
  void rate(const std::optional<double>& value, const char* key) const {
    if (value) want(*value >= 0 && *value < 1, key, "at least 0 and below 1");
  }
  void point(const std::optional<StepOrShare>& value, const char* key, bool zero_allowed) const {
    if (!value) return;
    const bool low = zero_allowed ? value->value >= 0 : value->value > 0;
    want(low && !(value->is_share && value->value > 1), key,
         zero_allowed ? "0 steps or more, or 0% to 100%" : "1 step or more, or more than 0% and up to 100%");
  }

 private:
  const RunOptions& o_;
};

void check_ranges(const RunOptions& o, const Checker& c) {
  c.at_least(o.max_length, 3, "max-length", "3 tokens (a word between the two specials)");
  if (o.mixer_k) c.between(static_cast<double>(*o.mixer_k), 1, kMostRows, "mixer-k");
  c.positive(o.mixer_std, "mixer-std");
  constexpr std::int64_t kShortest = 3;
  c.at_least(o.max_positions, static_cast<double>(o.max_length.value_or(kShortest)), "max-positions",
             o.max_length ? "max-length (" + std::to_string(*o.max_length) + ")" : std::to_string(kShortest));
  c.at_least(o.a_ce, 0, "a-ce", "0");
  c.at_least(o.a_kd, 0, "a-kd", "0");
  c.at_least(o.a_ld, 0, "a-ld", "0");
  c.positive(o.temperature, "temperature");
  c.point(o.hybrid_stop, "hybrid-stop", true);
  c.at_least(o.steps, 0, "steps", "0");
  c.positive(o.epochs, "epochs");
  c.between(static_cast<double>(o.batch_size), 1, kMostRows, "batch-size");
  c.between(static_cast<double>(o.accumulate), 1, kMostRows, "accumulate");
  c.at_least(o.learning_rate, 0, "learning-rate", "0");
  c.at_least(o.new_learning_rate, 0, "new-learning-rate", "0");
  c.at_least(o.weight_decay, 0, "weight-decay", "0");
  c.rate(o.beta1, "beta1");
  c.rate(o.beta2, "beta2");
  c.positive(o.epsilon, "epsilon");
  c.point(o.warmup, "warmup", true);
  c.want(o.schedule_floor >= 0 && o.schedule_floor <= 1, "schedule-floor", "0 to 1");
  c.at_least(o.clip, 0, "clip", "0");
  c.at_least(o.teacher_learning_rate, 0, "teacher-learning-rate", "0");
  c.at_least(o.teacher_interval, 1, "teacher-interval", "1");
  c.rate(o.dropout, "dropout");
  c.rate(o.teacher_dropout, "teacher-dropout");
  c.point(o.evaluate_every, "evaluate-every", false);
  c.between(static_cast<double>(o.eval_batch_size), 1, kMostRows, "eval-batch-size");
  c.point(o.checkpoint_every, "checkpoint-every", false);
  c.at_least(o.keep_waypoints, 0, "keep-waypoints", "0");
  c.at_least(o.drift_inputs, 1, "drift-inputs", "1");
  c.between(static_cast<double>(o.threads), 0, kMostThreads, "threads");
  c.at_least(o.recompute, 0, "recompute", "0 layers");
  c.at_least(o.micro_batches, 1, "micro-batches", "1");
  c.want(o.micro_batches <= o.batch_size, "micro-batches", "at most batch-size (" + std::to_string(o.batch_size) + ")");
}

bool guided(const RunOptions& o) { return o.mode != Mode::finetune && o.mode != Mode::unguided; }

/// A setting that only some runs have.
struct Belonging {
  const char* key;
  bool (*applies)(const RunOptions&);
  const char* where;
  bool by_mode;
};

constexpr const char* kGuidedModes = "the modes with a teacher (target, trajectory, waypoint)";

const Belonging kBelongings[] = {
    {"teacher", [](const RunOptions& o) { return o.mode == Mode::target; }, "mode target", true},
    {"waypoints", [](const RunOptions& o) { return o.mode == Mode::waypoint; }, "mode waypoint", true},
    {"student", [](const RunOptions& o) { return o.mode != Mode::finetune; }, "the modes that convert", true},
    {"hybrid-stop", guided, kGuidedModes, true},
    {"hybrid-stop-terms", [](const RunOptions& o) { return o.hybrid_stop.has_value(); }, "runs with hybrid-stop",
     false},
    {"drift-from", [](const RunOptions& o) { return o.hybrid_stop && o.hybrid_stop->automatic; },
     "runs with hybrid-stop auto", false},
    {"teacher-dropout", guided, kGuidedModes, true},
    {"teacher-learning-rate", [](const RunOptions& o) { return o.mode == Mode::trajectory; }, "mode trajectory", true},
    {"teacher-interval", [](const RunOptions& o) { return o.mode == Mode::trajectory; }, "mode trajectory", true},
    {"teacher-dtype", guided, kGuidedModes, true},
    {"map-teacher", [](const RunOptions& o) { return o.mode == Mode::target || o.mode == Mode::waypoint; },
     "the modes with a frozen teacher (target, waypoint)", true},
    {"keep-waypoints", [](const RunOptions& o) { return o.mode == Mode::finetune; }, "mode finetune", true},
    {"waypoint-spacing", [](const RunOptions& o) { return o.keep_waypoints > 0; }, "runs with keep-waypoints", false},
    {"drift", [](const RunOptions& o) { return o.mode == Mode::finetune; }, "mode finetune", true},
    {"drift-inputs", [](const RunOptions& o) { return o.drift; }, "runs with drift", false},
    {"evaluate-every", [](const RunOptions& o) { return !o.dev.empty(); }, "runs with dev", false},
};

void check_belonging(const RunOptions& o) {
  for (const OptionInfo& info : option_list()) {
    if (option_applies(o, info.key) || option_text(o, info.key) == info.default_text) continue;
    for (const Belonging& b : kBelongings)
      if (info.key == b.key)
        throw usage_error(info.key + " is given, but belongs to " + b.where +
                          (b.by_mode ? "; mode is " + enum_name(o.mode) : std::string()));
  }
}

void check_terms(const RunOptions& o, const Checker& c) {
  c.want(o.start != Start::teacher || o.mode == Mode::target, "start", "model: only mode target has a trained teacher");
  if (o.start == Start::teacher && o.teacher.empty())
    throw usage_error("start is teacher, wanted also teacher: the directory of the fine-tuned transformer");
  if (o.steps == 0) return;  // only converts: no loss, no teacher
  if (o.mode == Mode::target && o.teacher.empty())
    throw usage_error("mode is target, wanted also teacher: the directory of the fine-tuned transformer");
  if (o.mode == Mode::waypoint && o.waypoints.empty())
    throw usage_error("mode is waypoint, wanted also waypoints: the run directory of finetune --keep-waypoints");
  if (o.drift && o.dev.empty())
    throw usage_error("drift is measured on held-out inputs, wanted also dev: a file of them");
  c.want(o.waypoint_spacing == Spacing::steps || o.drift, "waypoint-spacing",
         "steps; equal drift needs the key drift, by which it is measured");
  c.want(!o.tf32 || o.device == DeviceOption::cuda, "tf32", "false on device cpu");
  c.want(!o.map_teacher || o.device == DeviceOption::cpu, "map-teacher", "false on device cuda");
  const bool distils = guided(o) && (o.a_kd > 0 || o.a_ld > 0);
  c.want(o.a_ce > 0 || distils, "a-ce", "more than 0: no other term of the loss has a weight");
  c.want(o.a_ce > 0 || !o.hybrid_stop, "a-ce", "more than 0: after hybrid-stop the task loss trains alone");
}

}  // namespace

bool option_applies(const RunOptions& o, std::string_view key) {
  for (const Belonging& b : kBelongings)
    if (key == b.key) return b.applies(o);
  return key != "epochs" || !o.steps;
}

void validate(const RunOptions& o) {
  const Checker c(o);
  if (o.mixer.empty()) throw usage_error("mixer is empty, wanted a mixer's name");
  if (o.layers.empty()) throw usage_error("layers is empty, wanted all, or a list such as 0,2,4-5");
  check_ranges(o, c);
  check_belonging(o);
  check_terms(o, c);
  c.want(o.schedule != Schedule::exponential || o.schedule_floor > 0, "schedule-floor",
         "more than 0: an exponential schedule cannot end at 0");
}

void require_options(const RunOptions& o, const std::vector<std::string>& keys) {
  for (const OptionInfo& info : option_list())
    for (const std::string& key : keys)
      if (info.key == key && option_text(o, key).empty())
        throw usage_error("--" + key + " is missing, wanted " + info.help);
}

}  // namespace cald
