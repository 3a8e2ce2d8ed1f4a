// cald finetune, cald convert and cald plan.
#include <algorithm>
#include <csignal>
#include <memory>
#include <set>
#include <string>

#include "app/cli_options.h"
#include "app/commands.h"
#include "app/report.h"
#include "app/run_options.h"
#include "app/text_table.h"
#include "app/time_table.h"
#include "train/cost.h"
#include "train/option_names.h"
#include "train/trace.h"
#include "train/trainer.h"

namespace cald {
namespace {

// A signal handler can reach nothing but a static.
std::atomic<bool> interrupted{false};

void stop_on_interrupt() {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = true; };
  action.sa_flags = SA_RESETHAND;  // the second Ctrl-C ends the program at once
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

/// "7199 training examples of 27.5 tokens, batches with 2.35 % pads, 450 steps, 2 threads".
std::string describe_work(const Trainer& trainer) {
  const EncodedTask& data = trainer.data();
  const std::string examples = data.size() == 0 ? "no training examples, "
                                                : std::to_string(data.size()) + " training examples of " +
                                                      human_number(data.mean_length()) + " tokens, batches with " +
                                                      human_percent(trainer.pad_share()) + " pads, ";
  return examples + std::to_string(trainer.total_steps()) + " steps, " + std::to_string(trainer.options().threads) +
         (trainer.options().threads == 1 ? " thread" : " threads");
}

/// Keys that mean something only where a transformer becomes something else.
bool is_conversion_key(std::string_view key) {
  static const std::set<std::string_view> kKeys = {"mode",
                                                   "teacher",
                                                   "waypoints",
                                                   "student",
                                                   "mixer",
                                                   "mixer-k",
                                                   "mixer-share",
                                                   "mixer-init",
                                                   "mixer-std",
                                                   "layers",
                                                   "start",
                                                   "preset",
                                                   "a-kd",
                                                   "a-ld",
                                                   "temperature",
                                                   "kd-squared",
                                                   "ld-embeddings",
                                                   "ld-reduce",
                                                   "ld-pads",
                                                   "ld-normalise",
                                                   "hybrid-stop",
                                                   "hybrid-stop-terms",
                                                   "drift-from",
                                                   "teacher-learning-rate",
                                                   "teacher-interval",
                                                   "teacher-dropout",
                                                   "teacher-dtype",
                                                   "map-teacher",
                                                   "new-learning-rate"};
  return kKeys.count(key) > 0;
}

/// Keys that mean something only while a transformer is fine-tuned.
bool is_finetuning_key(std::string_view key) {
  return key == "keep-waypoints" || key == "waypoint-spacing" || key == "drift" || key == "drift-inputs";
}

std::string describe(const MemoryCost& c) {
  std::string s = "memory: " + human_bytes(c.total()) + " (";
  for (int i = 0; i < kMemClasses; ++i)
    s += (i ? ", " : "") + std::string(name_of(static_cast<MemClass>(i))) + " " + human_bytes(c.by_class[i]);
  s += ")";
  if (!c.peak_op.empty()) s += "; the peak is at " + c.peak_op + " of " + c.peak_phase;
  return s;
}

void hold_budget(const std::string& budget, Trainer& trainer) {
  if (trainer.fit(parse_bytes(budget, "memory-budget"))) return;
  const Trainer::LeastMemory least = trainer.least_memory();
  const MemoryChoice& c = least.choice;
  std::string text = "--memory-budget " + budget + ": the run needs " + human_bytes(least.everything) +
                     ", and at the least " + human_bytes(c.bytes) + " with --recompute " + std::to_string(c.recompute) +
                     " --micro-batches " + std::to_string(c.micro_batches) + (c.map_teacher ? " --map-teacher" : "");
  if (!least.further.empty())
    text += ", and " + human_bytes(least.further_bytes) + " with " + least.further + " besides";
  throw usage_error(text);
}

std::string describe_choice(const RunOptions& o) {
  return "within --memory-budget " + o.memory_budget + ": " + std::to_string(o.recompute) +
         " layers computed again, batches in " + std::to_string(o.micro_batches) + " parts" +
         (o.map_teacher ? ", the teacher read from its files" : "");
}

/// The largest batch whose plan stays within `budget` bytes; 0 if none does.
std::int64_t largest_batch(Trainer& trainer, std::size_t budget) {
  std::int64_t fits = 0;
  for (std::int64_t probe = 1, step = 0; probe <= (1 << 20); probe = fits + step) {
    if (trainer.bytes_for(probe) <= budget) {
      fits = probe;
      step = step == 0 ? 1 : step * 2;
    } else {
      if (step <= 1) break;
      step = 1;
    }
  }
  return fits;
}

/// What a run shows beside its results; no part of the recipe.
struct LookFlags {
  std::string trace;
  std::optional<std::string> trace_steps, profile_steps;
};

/// The steps that are given to a flag; those of a run that is shorter are a mistake.
StepRange steps_of(const std::string& text, const char* flag, std::int64_t total) {
  const StepRange steps = StepRange::parse(text, flag);
  if (steps.first > total)
    throw usage_error("--" + std::string(flag) + " " + text + ": the run has " + std::to_string(total) + " steps");
  return steps;
}

int train(RunOptions options, const LookFlags& flags) {
  const bool chosen = keep_memory_choice(options);
  HeapAllocator heap(exec_of(options).device);
  Progress progress(stderr);
  KernelTimes times;
  std::vector<LaunchObserver*> observing{&times};
  std::optional<Trace> trace;
  if (flags.profile_steps && options.device != DeviceOption::cuda)
    throw usage_error("--profile-steps is for --device cuda; on the CPU see --trace");
  Trainer trainer(options, heap, progress);
  StepRange traced = StepRange::parse(kSteadySteps, "trace-steps");
  if (flags.trace_steps) traced = steps_of(*flags.trace_steps, "trace-steps", trainer.total_steps());
  if (!flags.trace.empty()) observing.push_back(&trace.emplace(flags.trace, traced));
  LaunchObservers observers(observing);
  // Nsight is to record them.
  if (flags.profile_steps) trainer.profile(steps_of(*flags.profile_steps, "profile-steps", trainer.total_steps()));
  holds_run(trainer.options());  // a complaint comes before the first line of output
  if (chosen)
    trainer.take_room(parse_bytes(options.memory_budget, "memory-budget"));
  else if (!options.memory_budget.empty())
    hold_budget(options.memory_budget, trainer);
  trainer.plan();
  const MemoryCost cost = trainer.cost();
  progress.say(trainer.transfer().text(false));
  progress.say(describe_work(trainer));
  if (trainer.total_steps() > 0) progress.say(describe(cost));
  if (!options.memory_budget.empty()) progress.say(describe_choice(trainer.options()));
  // On a GPU launches are timed for a trace alone: it would have to wait for each.
  const bool timed = options.device == DeviceOption::cpu || trace;
  if (timed) trainer.observe(&observers);
  stop_on_interrupt();
  const Outcome outcome = trainer.run(interrupted);
  if (trace) trace->finish();
  trainer.write_cost(cost);
  if (trainer.total_steps() > 0) write_report(options.output);
  if (outcome.interrupted) {
    progress.say("interrupted after step " + std::to_string(outcome.steps) + "; --resume goes on from there");
    return 130;
  }
  const std::size_t resident = peak_resident_bytes();  // before the peak's own arrays
  if (trainer.total_steps() > 0 && timed) {
    const bool in_bf16 = times.total().cost.bf16_flop > 0;
    progress.say(time_table(times, measure_peak(trainer.memory().exec(), in_bf16)));
  }
  std::string done = "model: " + options.output + "/model";
  if (outcome.best_accuracy >= 0) {
    char text[64];
    std::snprintf(text, sizeof text, ", accuracy %.2f %% after step %lld", 100 * outcome.best_accuracy,
                  static_cast<long long>(outcome.best_step));
    done += text;
  }
  progress.say(done + "; " + human_seconds(trainer.seconds()) + ", peak resident memory " + human_bytes(resident));
  if (trainer.total_steps() > 0) progress.say("report: " + options.output + "/report.html");
  return 0;
}

void print_trade(const std::vector<MemoryChoice>& trade) {
  // Where the teacher lies is only shown where there is a choice.
  const bool maps = std::any_of(trade.begin(), trade.end(), [](const MemoryChoice& c) { return c.map_teacher; });
  std::vector<std::string> names = {"micro-batches", "recompute", "peak", "time of a step, estimated"};
  if (maps) names.insert(names.begin(), "teacher");
  TextTable table(names);
  for (const MemoryChoice& c : trade) {
    char time[32];
    std::snprintf(time, sizeof time, "x %.2f", c.time);
    std::vector<std::string> row = {std::to_string(c.micro_batches), std::to_string(c.recompute) + " layers",
                                    human_bytes(c.bytes), time};
    if (maps) row.insert(row.begin(), c.map_teacher ? "in its files" : "in memory");
    table.add_row(row);
  }
  std::printf("\nmemory as a choice:\n%s", table.str().c_str());
}

int print_plan(RunOptions options) {
  HeapAllocator heap(exec_of(options).device);
  Progress progress(stderr);
  const std::string budget = std::exchange(options.memory_budget, "");
  Trainer trainer(options, heap, progress);
  const std::size_t limit = budget.empty() ? 0 : parse_bytes(budget, "memory-budget");
  const std::vector<MemoryChoice> trade = trainer.trade();
  const std::int64_t batch = limit ? largest_batch(trainer, limit) : 0;
  trainer.plan();
  const MemoryCost cost = trainer.cost();
  TextTable table({"class", "at the peak"});
  for (int i = 0; i < kMemClasses; ++i)
    table.add_row({name_of(static_cast<MemClass>(i)), human_bytes(cost.by_class[i])});
  table.add_row({"total", human_bytes(cost.total())});
  std::printf("%s", table.str().c_str());
  if (trainer.total_steps() == 0) return 0;
  std::printf("peak: at %s of %s\n", cost.peak_op.c_str(), cost.peak_phase.c_str());
  std::printf("arena: %zu bytes, lower bound %zu bytes (%.2f %% above it)\n", cost.arena, cost.lower_bound,
              100.0 * (static_cast<double>(cost.arena) / static_cast<double>(cost.lower_bound) - 1));
  if (limit)
    std::printf("largest batch within %s, keeping everything: %lld examples of %lld tokens\n", budget.c_str(),
                static_cast<long long>(batch), static_cast<long long>(trainer.data().longest()));
  print_trade(trade);
  return 0;
}

/// Adds the run's flags; `defaults.mode` is the command's own mode. `prepare` sees the settings as they were given.
CommandBody add_run(CLI::App& command, const RunOptions& defaults, const OptionParser::KeyFilter& wanted,
                    std::vector<std::string> needed, std::function<void(RunOptions&)> prepare,
                    std::function<int(const RunOptions&)> body) {
  auto parser = std::make_shared<OptionParser>();
  parser->add_options(command, defaults, wanted, "model");
  return [parser, defaults, needed, prepare, body] {
    RunOptions o = defaults;
    parser->apply(o);
    prepare(o);
    std::vector<std::string> keys = needed;
    if (o.steps != 0) keys.push_back("train");  // without a step there is nothing to read
    resolve(o, keys);
    return body(o);
  };
}

CommandBody add_training(CLI::App& command, const RunOptions& defaults, const OptionParser::KeyFilter& wanted) {
  auto flags = std::make_shared<LookFlags>();
  CLI::Option* trace = command.add_option("--trace", flags->trace,
                                          "write a trace of some steps to this file, for chrome://tracing or Perfetto");
  command.add_option("--trace-steps", flags->trace_steps, "which steps of this process, counted from 1: FIRST:LAST")
      ->needs(trace)
      ->default_str(kSteadySteps);
  command.add_option("--profile-steps", flags->profile_steps,
                     "--device cuda: steps that a profiler such as Nsight Systems is to record: FIRST:LAST");
  const bool finetunes = defaults.mode == Mode::finetune;
  const auto prepare = [finetunes](const RunOptions& o) {  // a recipe names its mode, and with it its command
    if ((o.mode == Mode::finetune) == finetunes) return;
    throw usage_error("mode is " + enum_name(o.mode) + ", which is for 'cald " + (finetunes ? "convert" : "finetune") +
                      "'");
  };
  return add_run(command, defaults, wanted, {"model", "output"}, prepare,
                 [flags](const RunOptions& o) { return train(o, *flags); });
}

}  // namespace

CommandBody add_finetune(CLI::App& command) {
  return add_training(command, {}, [](std::string_view key) { return !is_conversion_key(key); });
}

CommandBody add_convert(CLI::App& command) {
  return add_training(command, conversion_defaults(), [](std::string_view key) { return !is_finetuning_key(key); });
}

CommandBody add_plan(CLI::App& command) {
  const auto prepare = [](RunOptions& o) {
    if (o.dev.empty()) o.evaluate_every.reset();  // a recipe's
  };
  return add_run(command, conversion_defaults(), {}, {"model"}, prepare, print_plan);
}

}  // namespace cald
