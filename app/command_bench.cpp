// cald bench: the kernels, and a training step.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <set>

#include "app/cli_options.h"
#include "app/commands.h"
#include "app/exec_flags.h"
#include "app/run_options.h"
#include "app/text_table.h"
#include "app/time_table.h"
#include "bench/kernel_bench.h"
#include "bench/step_bench.h"
#include "data/atomic_file.h"
#include "train/option_io.h"

namespace cald {
namespace {

struct KernelFlags {
  KernelBenchOptions bench;
  std::vector<std::string> shapes;
  ExecFlags exec;
};

void add_kernel_flags(CLI::App& command, const std::shared_ptr<KernelFlags>& f) {
  command.add_option("--filter", f->bench.filter, "regular expression that a benchmark's name must match in part");
  command
      .add_option("--shape", f->shapes,
                  "batch,seq,hidden[,heads[,ffn[,slots]]]; may be given several times (default: MiniLM-L6 at 32,128 "
                  "and RoBERTa-base at 8,128)")
      ->take_all();
  command.add_option("--iterations", f->bench.iterations, "launches of a measurement; 0: as many as fill 0.1 s")
      ->check(whole_number(0, kMostRows))
      ->capture_default_str();
  command.add_option("--repetitions", f->bench.repetitions, "measurements of each benchmark")
      ->check(whole_number(1, 1000))
      ->capture_default_str();
  command.add_option("--json", f->bench.json, "also write Google Benchmark's JSON to this file");
  add_exec_flags(command, f->exec);
}

int bench_kernels(KernelFlags f) {
  f.bench.exec = exec_of(f.exec);
  for (const std::string& s : f.shapes) f.bench.shapes.push_back(parse_shape(s));
  if (f.shapes.empty()) f.bench.shapes = default_shapes();
  run_kernel_benchmarks(f.bench, stdout);
  return 0;
}

struct StepFlags {
  std::string shape, json, trace;
  std::int64_t iterations = 5;
};

/// Keys that say what a step computes; the others name data, files, or the course of a run.
bool is_step_key(std::string_view key) {
  static const std::set<std::string_view> kOthers = {"output",
                                                     "train",
                                                     "dev",
                                                     "text-column",
                                                     "pair-column",
                                                     "label-column",
                                                     "order",
                                                     "bucket",
                                                     "max-length",
                                                     "hybrid-stop",
                                                     "hybrid-stop-terms",
                                                     "steps",
                                                     "epochs",
                                                     "schedule",
                                                     "warmup",
                                                     "evaluate-every",
                                                     "schedule-floor",
                                                     "eval-batch-size",
                                                     "checkpoint-every",
                                                     "keep-best",
                                                     "keep-waypoints",
                                                     "resume",
                                                     "memory-budget",
                                                     "waypoint-spacing",
                                                     "drift",
                                                     "drift-inputs",
                                                     "drift-from"};
  return kOthers.count(key) == 0;
}

/// "8,128" as batch and tokens; what is not given is the recipe's.
void apply_shape(const std::string& text, StepBenchOptions& o) {
  o.seq = o.run.max_length.value_or(128);
  if (text.empty()) return;
  long long batch = 0, seq = 0;
  int read = 0;
  if (std::sscanf(text.c_str(), "%lld,%lld%n", &batch, &seq, &read) != 2 ||
      static_cast<std::size_t>(read) != text.size() || batch < 1 || batch > kMostRows || seq < 1 || seq > kMostRows)
    throw usage_error("--shape '" + text + "': wanted batch,seq, such as 32,128");
  o.run.batch_size = batch;
  o.seq = seq;
}

void print_step(const StepBenchResult& r) {
  const double median = r.median_seconds();
  const auto [low, high] = std::minmax_element(r.seconds.begin(), r.seconds.end());
  const Cost cost = r.cost_of_step();
  std::printf("step: %s (median of %zu, %s to %s), %s tokens/s\n", human_seconds(median).c_str(), r.seconds.size(),
              human_seconds(*low).c_str(), human_seconds(*high).c_str(),
              human_number(static_cast<double>(r.tokens) / median).c_str());
  std::printf("work: %s GFLOP in matrix products, %s GB moved; %s GFLOP/s, %.0f %% of the peak\n",
              human_number(cost.flop / 1e9).c_str(), human_number(cost.bytes / 1e9).c_str(),
              human_number(cost.flop / median / 1e9).c_str(), 100 * r.peak.compute_seconds(cost) / median);
  std::printf("memory: %s planned, at most %s resident\n", human_bytes(static_cast<double>(r.memory.total())).c_str(),
              human_bytes(static_cast<double>(r.peak_resident)).c_str());
  std::printf("peak: %s\n%s", r.peak.text().c_str(),
              roofline_table(r.kernels, r.peak, static_cast<std::int64_t>(r.seconds.size()), r.mean_seconds()).c_str());
}

int bench_step(StepBenchOptions o, const StepFlags& f) {
  apply_shape(f.shape, o);
  reset_options(o.run, [](std::string_view key) { return !is_step_key(key); });  // a recipe may hold them
  resolve(o.run, {"model"});
  o.iterations = f.iterations;
  o.trace = f.trace;
  const StepBenchResult result = run_step_benchmark(o);
  print_step(result);
  if (!f.json.empty()) write_file_atomically(f.json, step_json(o, result));
  return 0;
}

CommandBody add_step(CLI::App& command) {
  auto parser = std::make_shared<OptionParser>();
  auto f = std::make_shared<StepFlags>();
  command.add_option("--shape", f->shape, "batch,seq of a micro-batch (default: batch-size, and max-length or 128)");
  command
      .add_option("--iterations", f->iterations,
                  "measured steps, after two for warm-up (one where a step takes over 5 s)")
      ->check(whole_number(1, kMostRows))
      ->capture_default_str();
  command.add_option("--json", f->json, "also write the result to this file, in Google Benchmark's layout");
  command.add_option("--trace", f->trace, "write a trace of the first measured steps to this file");
  parser->add_options(command, conversion_defaults(), is_step_key, "model");
  return [parser, f] {
    StepBenchOptions o;
    o.run = conversion_defaults();
    parser->apply(o.run);
    return bench_step(std::move(o), *f);
  };
}

}  // namespace

CommandBody add_bench(CLI::App& command) {
  auto f = std::make_shared<KernelFlags>();
  CLI::App* kernels = command.add_subcommand("kernels", "Measure the kernels (also without this word)");
  CLI::App* step = command.add_subcommand("step", "Measure a whole training step of a recipe on random tokens");
  command.require_subcommand(0, 1);
  add_kernel_flags(command, f);
  add_kernel_flags(*kernels, f);
  const CommandBody step_body = add_step(*step);
  return [f, step, step_body] { return step->parsed() ? step_body() : bench_kernels(*f); };
}

}  // namespace cald
