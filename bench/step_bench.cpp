#include "bench/step_bench.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "engine/base/rng.h"
#include "train/option_names.h"
#include "train/trace.h"
#include "train/trainer.h"

namespace cald {
namespace {

/// Texts of `seq` tokens each, specials as the family has them, with the classes of the model's head or else two.
EncodedTask random_task(const EncoderConfig& config, std::int64_t rows, std::int64_t seq, std::uint64_t seed) {
  if (seq > config.max_tokens())
    throw usage_error("--shape: " + std::to_string(seq) + " tokens are more than the model's " +
                      std::to_string(config.max_tokens()) + " positions (--max-positions extends them)");
  constexpr std::uint32_t kFirstWord = 5;  // RoBERTa's specials and BERT's pad end before it
  const auto words = static_cast<std::uint32_t>(config.vocab_size) - kFirstWord;
  const std::size_t classes = std::max<std::size_t>(2, config.labels.size());
  EncodedTask task;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < classes; ++i) names.push_back("LABEL_" + std::to_string(i));
  task.label_map = LabelMap::from_names(config.labels.empty() ? names : config.labels);
  RandomStream random(seed, 0);
  for (std::int64_t i = 0; i < rows; ++i) {
    Tokenizer::Encoding e;
    for (std::int64_t s = 0; s < seq; ++s) e.ids.push_back(static_cast<std::int32_t>(kFirstWord + random.below(words)));
    e.type_ids.assign(e.ids.size(), 0);
    task.encodings.push_back(std::move(e));
    task.labels.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint32_t>(classes))));
  }
  return task;
}

/// Seconds after which one step is warm-up enough: what a first step does once (pages, code generation) is nothing
/// beside it.
constexpr double kLongStep = 5;

/// The run as one that lasts as long as the measurement and is guided to its end.
RunOptions measured_run(const StepBenchOptions& o) {
  RunOptions run = o.run;
  run.steps = o.warmup + 2 * o.iterations;
  run.warmup = {0, false};
  run.hybrid_stop.reset();
  run.drift = false;
  run.order = Order::given;
  run.train.clear();
  run.dev.clear();
  return run;
}

}  // namespace

double StepBenchResult::median_seconds() const {
  std::vector<double> sorted = seconds;
  std::sort(sorted.begin(), sorted.end());
  const std::size_t n = sorted.size();
  return n == 0 ? 0 : (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

double StepBenchResult::mean_seconds() const {
  return std::accumulate(seconds.begin(), seconds.end(), 0.0) / static_cast<double>(seconds.size());
}

Cost StepBenchResult::cost_of_step() const {
  Cost c = kernels.total().cost;
  const auto steps = static_cast<double>(std::max<std::size_t>(1, seconds.size()));
  return {c.flop / steps, c.bytes / steps, c.bf16_flop / steps};
}

StepBenchResult run_step_benchmark(const StepBenchOptions& o) {
  using Clock = Launch::Clock;
  StepBenchResult result;
  const RunOptions run = measured_run(o);
  HeapAllocator heap(exec_of(run).device);
  Progress progress(stderr);
  EncoderConfig config = read_encoder_config(ModelDir(start_directory(run)));
  if (run.max_positions) config.max_positions += *run.max_positions - config.max_tokens();
  if (run.new_head) config.labels.clear();
  result.tokens = run.batch_size * run.accumulate * o.seq;
  Trainer trainer(run, heap, progress, random_task(config, run.batch_size * run.accumulate, o.seq, run.seed));
  trainer.plan();
  result.memory = trainer.cost();
  std::vector<LaunchObserver*> observing{&result.kernels};
  std::optional<Trace> trace;
  if (!o.trace.empty())
    observing.push_back(&trace.emplace(o.trace, StepRange{1, std::min<std::int64_t>(3, o.iterations)}));
  LaunchObservers observers(observing);
  // Observers hold up a device that runs ahead: there they see other steps than those that are timed.
  const bool apart = functions_of(trainer.memory().exec().device).runs_ahead;
  std::int64_t warmup = o.warmup;
  for (std::int64_t step = 0; step < warmup + o.iterations; ++step) {
    if (step == warmup && !apart) trainer.observe(&observers);
    const auto start = Clock::now();
    trainer.step(step);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (step >= warmup)
      result.seconds.push_back(seconds);
    else if (seconds > kLongStep)
      warmup = step + 1;
  }
  if (apart) trainer.observe(&observers);
  for (std::int64_t i = 0; apart && i < o.iterations; ++i) trainer.step(warmup + o.iterations + i);
  if (trace) trace->finish();
  result.peak_resident = peak_resident_bytes();
  result.peak = measure_peak(trainer.memory().exec(), result.kernels.total().cost.bf16_flop > 0, 1.0);
  return result;
}

std::string step_json(const StepBenchOptions& o, const StepBenchResult& r) {
  nlohmann::ordered_json j;
  const Cost cost = r.cost_of_step();
  j["context"] = {{"threads", o.run.threads},
                  {"peak_flop_per_second", r.peak.flop_per_s},
                  {"peak_bf16_flop_per_second", r.peak.bf16_flop_per_s},
                  {"peak_bytes_per_second", r.peak.bytes_per_s},
                  {"planned_bytes", r.memory.total()},
                  {"peak_resident_bytes", r.peak_resident},
                  {"tokens_per_step", r.tokens},
                  {"flop_per_step", cost.flop},
                  {"bytes_per_step", cost.bytes}};
  const std::string name = "step/" + std::string(enum_name(o.run.mode)) + "/" + enum_name(o.run.dtype) + "/" +
                           std::to_string(o.run.batch_size) + "," + std::to_string(o.seq);
  j["benchmarks"] = nlohmann::json::array();
  const auto entry = [](const std::string& which, double seconds) {
    return nlohmann::ordered_json{{"name", which},   {"run_name", which},          {"run_type", "iteration"},
                                  {"iterations", 1}, {"real_time", seconds * 1e3}, {"time_unit", "ms"}};
  };
  for (const double s : r.seconds) j["benchmarks"].push_back(entry(name, s));
  const auto steps = static_cast<double>(r.seconds.size());
  for (const auto& [kernel, row] : r.kernels.rows()) {
    j["benchmarks"].push_back(entry(name + "/" + kernel, row.seconds / steps));
    j["benchmarks"].back().update({{"calls", static_cast<double>(row.calls) / steps},
                                   {"flop", row.cost.flop / steps},
                                   {"bytes", row.cost.bytes / steps}});
  }
  return j.dump(1) + "\n";
}

}  // namespace cald
