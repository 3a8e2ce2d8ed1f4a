// cald drift as a user runs it: recorded and measured drift, the report's section, the stop that follows, refusals.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/app/run_program.h"

namespace cald {
namespace {
using nlohmann::json;

const std::string kModel = " '" + kGolden + "models/bert_h36'";

void put_data(const TempFolder& f) {
  std::string rows = "sentence\tlabel\n";
  for (const char* text : {"a good film", "the plot is bad", "good", "not a good film at all", "the story is dull"})
    rows += std::string(text) + "\t" + (std::string(text).find("good") == std::string::npos ? "0" : "1") + "\n";
  f.put("data.tsv", rows);
}

Result finetune(const TempFolder& f, const std::string& flags) {
  put_data(f);
  return cald(f, "finetune" + kModel + " --train data.tsv --dev data.tsv --batch-size 2 --max-length 20 --threads 1" +
                     " --learning-rate 1e-3 --output run " + flags);
}

/// Leaves those lines of the run's metrics that `keep` wants.
template <class Keep>
void filter_metrics(const TempFolder& f, Keep&& keep) {
  std::istringstream in(content_of(f / "run/metrics.jsonl"));
  std::string out;
  for (std::string line; std::getline(in, line);)
    if (keep(json::parse(line))) out += line + "\n";
  f.put("run/metrics.jsonl", out);
}

TEST(DriftCommand, ShowsWhatARunRecordedAndTheStopFollows) {
  TempFolder f;
  ASSERT_EQ(finetune(f, "--steps 9 --drift --drift-inputs 3").code, 0);
  const Result r = cald(f, "drift run --json drift.json");
  ASSERT_EQ(r.code, 0) << r.err;
  const json j = json::parse(content_of(f / "drift.json"));
  EXPECT_EQ(j.at("steps"), (json{0, 1, 2, 4, 8, 9}));
  EXPECT_EQ(j.at("drift_by_state").size(), 6u);
  EXPECT_EQ(j.at("drift_by_state")[5].size(), 3u) << "embeddings and two layers";
  EXPECT_GT(j.at("drift")[5].get<double>(), 0);
  EXPECT_CONTAINS(r.out, "mode: " + j.at("mode").get<std::string>());
  EXPECT_CONTAINS(r.out, "layer 2");
  EXPECT_CONTAINS(r.out, "half of the final drift");
  const std::string html = content_of(f / "run/report.html");
  EXPECT_CONTAINS(html, "<h2>Drift by layer</h2>");
  EXPECT_CONTAINS(html, "so mode " + j.at("mode").get<std::string>() + " suits");

  const Result c = cald(f, "convert" + kModel +
                               " --mode target --teacher run/model --mixer-k 4 --train data.tsv --steps 4 --max-length "
                               "20 --hybrid-stop auto --output target");
  ASSERT_EQ(c.code, 0) << c.err;
  const json recipe = json::parse(content_of(f / "target/recipe.json"));
  const int percent = static_cast<int>(std::lround(100 * j.at("hybrid_stop").get<double>()));
  EXPECT_EQ(recipe.at("hybrid-stop"), std::to_string(percent) + "%");
  EXPECT_FALSE(recipe.contains("drift-from"));
}

TEST(DriftCommand, MeasuresAtWaypointsWhatTheRunWouldHaveRecorded) {
  TempFolder f;
  ASSERT_EQ(finetune(f, "--steps 4 --drift --drift-inputs 3 --keep-waypoints 2").code, 0);
  const Result shown = cald(f, "drift run --dev data.tsv --json recorded.json");
  ASSERT_EQ(shown.code, 0) << shown.err;
  EXPECT_EQ(shown.err, "run has recorded its drift: --dev is not used\n");
  filter_metrics(f, [](const json& line) { return !line.contains("drift"); });
  const Result r = cald(f, "drift run --dev data.tsv --inputs 3 --threads 1 --json measured.json");
  ASSERT_EQ(r.code, 0) << r.err;
  const json recorded = json::parse(content_of(f / "recorded.json")),
             measured = json::parse(content_of(f / "measured.json"));
  EXPECT_EQ(recorded.at("steps"), (json{0, 1, 2, 4}));
  EXPECT_EQ(measured.at("steps"), (json{0, 2, 4}));
  for (const int i : {0, 1, 2}) {  // one kernel, one batch, the same weights: the same bits
    const int same = i == 0 ? 0 : i + 1;
    EXPECT_EQ(measured.at("drift_by_state")[i], recorded.at("drift_by_state")[same]) << i;
  }
  fs::remove_all(f / "run/waypoints/2");
  EXPECT_CONTAINS(cald(f, "drift run --dev data.tsv").err, "has 1 of its 2 waypoints: the run has not ended");
}

TEST(DriftCommand, SaysNothingOfTheModeBeforeTheEnd) {
  TempFolder f;
  ASSERT_EQ(finetune(f, "--steps 4 --drift").code, 0);
  filter_metrics(f, [](const json& line) { return line.at("step") <= 2; });
  const Result r = cald(f, "drift run --json drift.json");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_CONTAINS(r.out, "measured until step 2 of 4");
  EXPECT_EQ(r.out.find("mode:"), std::string::npos);
  EXPECT_FALSE(json::parse(content_of(f / "drift.json")).contains("mode"));
  ASSERT_EQ(cald(f, "report run").code, 0);
  const std::string html = content_of(f / "run/report.html");
  EXPECT_CONTAINS(html, "<h2>Drift by layer</h2>");
  EXPECT_EQ(html.find("of the final drift"), std::string::npos);
}

TEST(DriftCommand, RefusesInOneLineAndLeavesNothing) {
  TempFolder f;
  ASSERT_EQ(finetune(f, "--steps 2").code, 0);
  f.put("still.jsonl",
        R"({"step":0,"of":1,"drift":[0,0,0]})" + std::string("\n") + R"({"step":1,"of":1,"drift":[0,0,0]})" + "\n");
  fs::create_directories(f / "still");
  fs::rename(f / "still.jsonl", f / "still/metrics.jsonl");
  const std::string train = " --train data.tsv --steps 2 --max-length 20 --output no", dev = " --dev data.tsv",
                    convert = "convert" + kModel + " --mixer-k 4" + train, tune = "finetune" + kModel + train;
  const struct {
    const char* name;
    std::string arguments;
    int code;
    const char* message;
  } cases[] = {
      {"no run", "drift nowhere", 1, "nowhere"},
      {"no drift", "drift run", 1, "finetune ... --drift"},
      {"no waypoints", "drift run --dev data.tsv", 1, "finetune ... --drift"},
      {"nothing moved", "drift still", 1, "have not moved"},
      {"auto without a run", convert + " --mode trajectory --hybrid-stop auto", 2, "wanted also drift-from"},
      {"auto from a run without drift", convert + " --mode target --teacher run/model --hybrid-stop auto", 1,
       "run: has no drift"},
      {"a run without auto", convert + " --mode trajectory --hybrid-stop 50% --drift-from run", 2,
       "belongs to runs with hybrid-stop auto"},
      {"no stop", convert + " --mode trajectory --hybrid-stop automatic", 2, "or auto"},
      {"no held-out inputs", tune + " --drift", 2, "wanted also dev"},
      {"equal drift unmeasured", tune + dev + " --keep-waypoints 2 --waypoint-spacing drift", 2, "needs the key drift"},
      {"fewer steps than waypoints", tune + dev + " --drift --keep-waypoints 3 --waypoint-spacing drift", 2,
       "keep-waypoints is 3, but the run has 2 steps"},
      {"spacing of nothing", tune + dev + " --drift --waypoint-spacing drift", 2, "runs with keep-waypoints"},
      {"inputs of nothing", tune + dev + " --drift-inputs 5", 2, "runs with drift"},
      {"no inputs", tune + dev + " --drift --drift-inputs 0", 2, "wanted at least 1"},
  };
  const std::set<std::string> before = f.names();
  for (const auto& c : cases) {
    const Result r = cald(f, c.arguments);
    expect_one_line_error(r, c.code, c.message, c.name);
    EXPECT_EQ(f.names(), before) << c.name;
  }
}

}  // namespace
}  // namespace cald
