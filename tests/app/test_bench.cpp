// cald bench and --trace as a user runs them.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/app/run_program.h"

namespace cald {
namespace {

TEST(Bench, MeasuresKernelsAndSteps) {
  TempFolder f;
  Result r = cald(f, "bench --filter activation --shape 2,5,24 --iterations 1 --repetitions 1 --json k.json");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_CONTAINS(r.out, "activation_backward/gelu/2,5,24");
  EXPECT_EQ(nlohmann::json::parse(content_of(f / "k.json")).at("benchmarks").size(), 2u);
  r = cald(f, "bench step '" + kGolden + "models/bert_h36' --shape 2,9 --iterations 1 --mixer-k 4 --json s.json");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_CONTAINS(r.out, "tokens/s");
  EXPECT_CONTAINS(r.out, "low_rank_backward");
  EXPECT_EQ(nlohmann::json::parse(content_of(f / "s.json")).at("context").at("tokens_per_step"), 18);
  EXPECT_EQ(f.names(), (std::set<std::string>{"k.json", "s.json"})) << "no run is left behind";
  // Either dtype's products are held against a peak of their own.
  for (const char* dtypes : {"--dtype bf16 --teacher-dtype f32", "--teacher-dtype bf16"}) {
    const std::string teacher = "'" + kGolden + "steps/models/bert_finetuned/waypoints/2'";
    r = cald(f, "bench step " + teacher + " --mode target --teacher " + teacher + " --shape 2,9 --iterations 1 " +
                    "--mixer-k 4 " + dtypes);
    ASSERT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(r.out.find("inf"), std::string::npos) << r.out;
  }
  // What a recipe says of a run's course is nothing to a step.
  f.put("r.json", R"({"mode": "unguided", "mixer-k": 4, "evaluate-every": "50%", "checkpoint-every": 7, "steps": 500,
                      "warmup": 400, "train": "none.tsv", "max-length": 9})");
  r = cald(f, "bench step '" + kGolden + "models/bert_h36' --recipe r.json --iterations 1 --json r.json.out");
  ASSERT_EQ(r.code, 0) << r.err;
  const auto context = nlohmann::json::parse(content_of(f / "r.json.out")).at("context");
  EXPECT_EQ(context.at("tokens_per_step"), 32 * 9);
}

TEST(Bench, BadInputGivesOneLineAndTwo) {
  TempFolder f;
  f.put("good.tsv", "sentence\tlabel\na good film\t1\nthe plot is bad\t0\n");
  const std::string model = "'" + kGolden + "models/bert_h36'";
  const std::pair<std::string, const char*> cases[] = {
      {"bench --filter nowhere", "matches no benchmark"},
      {"bench --shape 2,5", "--shape"},
      {"bench kernel", "kernels"},
      {"bench step " + model + " --shape 2x9", "--shape"},
      {"bench step " + model + " --iteration 2", "--iterations"},
      {"bench step " + model + " --mode target", "teacher"},
      {"finetune " + model + " --train good.tsv --steps 2 --output run --trace t.json --trace-steps 3:1",
       "--trace-steps"},
  };
  for (const auto& [arguments, message] : cases) {
    const Result r = cald(f, arguments);
    EXPECT_EQ(r.code, 2) << arguments << ": " << r.err;
    EXPECT_CONTAINS(r.err, message) << arguments;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << arguments << ": " << r.err;
  }
  EXPECT_EQ(f.names(), std::set<std::string>{"good.tsv"});
}

TEST(Bench, ARunWritesItsTraceAndAPathThatCannotBeWrittenStopsItFirst) {
  TempFolder f;
  f.put("good.tsv", "sentence\tlabel\na good film\t1\nthe plot is bad\t0\n");
  const std::string run =
      "finetune '" + kGolden + "models/bert_h36' --train good.tsv --steps 3 --max-length 20 --threads 1 --output run";
  Result r = cald(f, run + " --trace nowhere/t.json");
  EXPECT_EQ(r.code, 1);
  EXPECT_CONTAINS(r.err, "nowhere/t.json");
  EXPECT_FALSE(fs::exists(f / "run"));
  r = cald(f, run + " --trace t.json --trace-steps 2");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_CONTAINS(content_of(f / "t.json"), "step 2");
  EXPECT_CONTAINS(r.err, "GFLOP/s");
}

}  // namespace
}  // namespace cald
