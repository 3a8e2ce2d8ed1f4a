// The benchmark of a training step: it does a run's work, and says how much that is.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "bench/step_bench.h"
#include "tests/data/temp_folder.h"
#include "train/option_io.h"

namespace cald {
namespace {

const std::string kGolden = std::string(CALD_SOURCE_DIR) + "/tests/golden/";

StepBenchOptions small(Mode mode) {
  StepBenchOptions o;
  o.run.model = kGolden + "models/bert_h36";
  o.run.mode = mode;
  o.run.mixer_k = 8;
  o.run.batch_size = 3;
  o.run.threads = 2;
  if (mode == Mode::target) {
    o.run.teacher = kGolden + "steps/models/bert_finetuned/waypoints/2";
    o.run.hybrid_stop = StepOrShare{0.1, true};
  }
  resolve_preset(o.run);
  o.seq = 20;
  o.iterations = 3;
  return o;
}

TEST(StepBench, CountsTheWorkOfAStep) {
  const StepBenchResult r = run_step_benchmark(small(Mode::finetune));
  EXPECT_EQ(r.seconds.size(), 3u);
  EXPECT_EQ(r.tokens, 60);
  EXPECT_GT(r.peak.flop_per_s, 0.0);
  EXPECT_GE(r.peak_resident, r.memory.persistent);
  for (const auto& [kernel, row] : r.kernels.rows()) EXPECT_EQ(row.calls % 3, 0) << kernel << ": equal steps";
  // Two layers of 36 features, 56 inside; a head of 36 and 3: forward and twice as much backward. Attention has two
  // products forward and five backward.
  const double linear = 3 * 2.0 * (60 * 2 * (4 * 36 * 36 + 2 * 36 * 56) + 3 * (36 * 36 + 36 * 3));
  const double attention = 7 * 2.0 * 2 * 3 * 20 * 20 * 36;
  EXPECT_DOUBLE_EQ(r.cost_of_step().flop, linear + attention);
}

TEST(StepBench, GuidesEveryStepAndWritesWhatComparesWithKernels) {
  TempFolder folder;
  StepBenchOptions o = small(Mode::target);
  o.trace = folder / "trace.json";
  const StepBenchResult r = run_step_benchmark(o);
  for (const auto& [kernel, row] : r.kernels.rows())
    if (kernel == "squared_error") {
      EXPECT_EQ(row.calls, 3 * 3) << "the embeddings and two layers in each step";
    }
  const auto j = nlohmann::json::parse(step_json(o, r));
  EXPECT_EQ(j.at("benchmarks")[2].at("name"), "step/target/f32/3,20");
  EXPECT_EQ(j.at("benchmarks").size(), 3 + r.kernels.rows().size());
  std::vector<std::string> steps;
  const auto trace = nlohmann::json::parse(content_of(folder / "trace.json"));
  for (const auto& e : trace.at("traceEvents"))
    if (e.at("name").get<std::string>().rfind("step ", 0) == 0) steps.push_back(e.at("name"));
  EXPECT_EQ(steps, (std::vector<std::string>{"step 3", "step 4", "step 5"}));
}

TEST(StepBench, RefusesMoreTokensThanPositions) {
  StepBenchOptions o = small(Mode::unguided);
  o.seq = 40;
  EXPECT_THROW(run_step_benchmark(o), Error);
}

}  // namespace
}  // namespace cald
