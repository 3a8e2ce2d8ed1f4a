// Reports of synthetic run directories: every section, missing files, broken lines, escaping, nothing from the network.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "app/report.h"
#include "app/report_page.h"
#include "app/report_sections.h"
#include "app/run_data.h"
#include "engine/base/error.h"

namespace cald {
namespace {

namespace fs = std::filesystem;

std::string slurp(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream s;
  s << file.rdbuf();
  return s.str();
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

template <class F>
std::string error_of(F&& f, ErrorKind kind) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.what();
    EXPECT_FALSE(has(e.what(), "\n"));
    return e.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

class Report : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) /
            (std::string("report_") + testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  void write(const std::string& run, const std::string& file, const std::string& text) const {
    fs::create_directories(root_ / run);
    std::ofstream(root_ / run / file, std::ios::binary) << text;
  }
  std::string dir(const std::string& run) const { return (root_ / run).string(); }
  std::string report(const std::string& run) const {
    write_report(dir(run));
    return slurp(root_ / run / "report.html");
  }

  /// A guided run of 20 steps with every file; its best accuracy is `accuracy`, at step 10.
  void write_run(const std::string& run, const std::string& mode, double accuracy) const {
    write(run, "recipe.json", R"({"model": "m", "mode": ")" + mode + R"(", "batch-size": 8, "learning-rate": 5e-05})");
    std::ostringstream metrics, timing;
    for (int s = 1; s <= 20; ++s) {
      metrics << R"({"step":)" << s << R"(,"loss":)" << 3.0 / s << R"(,"ce":)" << 1.0 / s << R"(,"ld":)" << 2.0 / s
              << R"(,"teacher_ce":0.5,"learning_rate":5e-05,"ld_by_state":[0.5,)" << 1.5 / s << "]}\n";
      timing << R"({"step":)" << s << R"(,"seconds":0.5,"tokens":800,"padded_tokens":1000})"
             << "\n";
      if (s % 5 == 0)
        metrics << R"({"step":)" << s << R"(,"eval":{"accuracy":)" << (s == 10 ? accuracy : accuracy - 0.01)
                << R"(,"loss":0.4,"examples":872}})"
                << "\n";
    }
    write(run, "metrics.jsonl", metrics.str());
    write(run, "timing.jsonl", timing.str());
    write(run, "plan.json", R"({"bytes":{"workspace":1048576,"weights":3145728,"teacher":0},"peak_bytes":4194304,
      "arena_bytes":1100000,"lower_bound_bytes":1000000,"peak_op":"softmax","peak_phase":"guided, batch 8",
      "timeline":[3145728,4194304,3145728],"resident_peak_bytes":5242880})");
    write(run, "cost.json", R"({"seconds_total":83,"seconds_per_step":0.5,"tokens_per_second":1600,
      "peak_resident_bytes":6291456})");
    write(run, "conversion.json",
          R"({"copied":99,"mapped":0,"new":["layer.0.self.E","layer.1.self.E"],"dropped":["pooler.weight"]})");
  }

  fs::path root_;
};

TEST_F(Report, HasEverySectionWithItsFigures) {
  write_run("run", "trajectory", 0.8765);
  const std::string html = report("run");
  for (const char* title : {"Results", "Loss by term", "Accuracy", "Distance to the teacher by layer", "Conversion",
                            "Memory plan", "Cost", "Recipe"})
    EXPECT_TRUE(has(html, "<h2>" + std::string(title) + "</h2>")) << title;
  EXPECT_FALSE(has(html, "class=\"missing\""));
  for (const char* figure : {"87.65 %",
                             "best, at step 10, 872 examples",
                             "95.3 %",
                             "83.6 %",
                             "93.3 %",
                             "94.0 %",
                             "93.7 %",
                             "91.4 %",
                             "RoBERTa-base",
                             "another model and more data",
                             "1 min 23 s",
                             "1600",
                             "20.00 %",
                             "6.00 MiB",
                             "3.00 MiB",
                             "10.00 %",
                             "softmax of guided, batch 8",
                             "layer.*.self.E (2)",
                             "pooler.weight",
                             "layer 1",
                             "embeddings",
                             "teacher&#39;s task loss",
                             "layerwise distillation (ld)"})
    EXPECT_TRUE(has(html, figure)) << figure;
  // The row of the run's own mode is the one that stands out, with both figures.
  EXPECT_TRUE(has(html, "<tr><td>CALD, target</td><td class=\"right\"></td><td class=\"right\">93.3 %</td></tr>"));
  EXPECT_TRUE(has(html,
                  "<tr class=\"marked\"><td>CALD, trajectory</td><td class=\"right\">87.65 %</td><td "
                  "class=\"right\">94.0 %</td></tr>"));
}

TEST_F(Report, LoadsNothingFromElsewhereAndRunsNoScript) {
  write_run("run", "target", 0.9);
  write_report(dir("run"));
  write_comparison({dir("run")}, dir("run") + "/all.html");
  for (const char* file : {"report.html", "all.html"}) {
    const std::string html = slurp(root_ / "run" / file);
    EXPECT_TRUE(has(html, "</html>"));
    for (const char* bad : {"http", "//", "src=", "href=", "url(", "@import", "<script", "<link", "<img"})
      EXPECT_FALSE(has(html, bad)) << file << " has " << bad;
    for (const char* tag : {"svg", "table", "section", "div", "figure", "details", "span", "tr"})
      EXPECT_EQ(count(html, "<" + std::string(tag) + ">") + count(html, "<" + std::string(tag) + " "),
                count(html, "</" + std::string(tag) + ">"))
          << tag;
    EXPECT_FALSE(has(html, "nan"));
  }
}

TEST_F(Report, EscapesWhatComesFromFiles) {
  write_run("run", "target", 0.9);
  const std::string evil = R"(<script>x</script>&\"')";
  write("run", "recipe.json", R"({"model": ")" + evil + R"(", "mode": ")" + evil + R"(", ")" + evil + R"(": 1})");
  write("run", "plan.json", R"({"bytes":{")" + evil + R"(":5},"peak_bytes":5,"peak_op":")" + evil + "\"}");
  write("run", "conversion.json", R"({"copied":1,"mapped":0,"new":[")" + evil + R"("],"dropped":[]})");
  const std::string html = report("run");
  EXPECT_FALSE(has(html, "<script"));
  EXPECT_GE(count(html, "&lt;script&gt;x&lt;/script&gt;&amp;&quot;&#39;"), 6u);
}

TEST(EscapeHtml, KeepsUtf8AndReplacesWhatIsNot) {
  EXPECT_EQ(escape_html("a<b>&\"'\n"), "a&lt;b&gt;&amp;&quot;&#39;\n");
  EXPECT_EQ(escape_html("gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x98\x80"),
            "gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x98\x80");
  const std::string bad = "\xEF\xBF\xBD";
  EXPECT_EQ(escape_html("\xFF"
                        "a\x01\xC3"),
            bad + "a" + bad + bad);
  EXPECT_EQ(escape_html("\xC0\x80"), bad + bad);
  EXPECT_EQ(escape_html("\xED\xA0\x80"), bad + bad + bad);
}

TEST_F(Report, SaysWhatIsMissing) {
  write("run", "recipe.json", R"({"mode": "unguided"})");
  const std::string html = report("run");
  for (const char* text : {"has no metrics.jsonl", "has no plan.json", "has no cost.json", "has no timing.jsonl",
                           "has no distances by state", "no evaluation in this run"})
    EXPECT_TRUE(has(html, text)) << text;
  EXPECT_FALSE(has(html, "<svg"));
  EXPECT_FALSE(has(html, "<h2>Conversion</h2>"));
}

TEST_F(Report, NeedsARecipe) {
  write("run", "metrics.jsonl", "");
  EXPECT_TRUE(has(error_of([&] { write_report(dir("run")); }, ErrorKind::runtime), "recipe.json"));
  EXPECT_FALSE(fs::exists(root_ / "run" / "report.html"));
}

TEST_F(Report, NamesTheLineThatIsBroken) {
  write("run", "recipe.json", "{}");
  const auto message = [&](const std::string& lines) {
    write("run", "metrics.jsonl", lines);
    return error_of([&] { read_run(dir("run")); }, ErrorKind::data);
  };
  const std::string file = dir("run") + "/metrics.jsonl";
  EXPECT_EQ(message("{\"step\":1,\"loss\":1}\n{\"step\":2,\n{\"step\":3}\n").find(file + ":2: not JSON"), 0u);
  EXPECT_EQ(message("{\"step\":1}\n{\"step\":2,}\n").find(file + ":2: not JSON"), 0u) << "its line feed is there";
  EXPECT_EQ(message("{\"loss\":1}\n"), file + ":1: lacks the key 'step', wanted a number");
  EXPECT_EQ(message("{\"step\":\"1\"}\n"), file + ":1: key 'step' is string, wanted a number");
  EXPECT_EQ(message("[]\n"), file + ":1: is array, wanted a JSON object");
  EXPECT_EQ(message("{\"step\":1,\"eval\":3}\n"), file + ":1: key 'eval' wanted a JSON object");
  EXPECT_EQ(message("{\"step\":1,\"eval\":{}}\n"), file + ":1: lacks the key 'accuracy', wanted a number");
  EXPECT_EQ(message("{\"step\":1,\"ld_by_state\":[\"x\"]}\n"), file + ":1: key 'ld_by_state' wanted a list of numbers");
  write("run", "metrics.jsonl", "");
  const auto in_file = [&](const char* name, const std::string& text) {
    write("run", name, text);
    const std::string m = error_of([&] { read_run(dir("run")); }, ErrorKind::data);
    fs::remove(root_ / "run" / name);
    EXPECT_EQ(m.find(dir("run") + "/" + name), 0u);
    return m.substr(dir("run").size() + 1);
  };
  EXPECT_EQ(in_file("timing.jsonl", "{\"step\":1}\n"), "timing.jsonl:1: lacks the key 'seconds', wanted a number");
  EXPECT_EQ(in_file("plan.json", "{}"), "plan.json: key 'bytes' wanted a JSON object of sizes");
  EXPECT_EQ(in_file("plan.json", R"({"bytes":{"weights":"x"}})"),
            "plan.json: key 'weights' is string, wanted a number");
  EXPECT_EQ(in_file("plan.json", R"({"bytes":{},"peak_bytes":1,"peak_op":1})"),
            "plan.json: key 'peak_op' is number, wanted a text");
  EXPECT_EQ(in_file("cost.json", R"({"seconds_total":[]})"),
            "cost.json: key 'seconds_total' is array, wanted a number");
  EXPECT_EQ(in_file("conversion.json", R"({"copied":1,"mapped":1,"new":[1]})"),
            "conversion.json: key 'new' wanted a list of names");
}

TEST_F(Report, IgnoresATruncatedLastLine) {
  write("run", "recipe.json", "{}");
  write("run", "metrics.jsonl", "{\"step\":1,\"loss\":1}\n{\"step\":2,\"lo");
  EXPECT_EQ(read_run(dir("run")).metrics.at("loss").size(), 1u);
  // One that is whole but for its line feed counts.
  write("run", "metrics.jsonl", "{\"step\":1,\"loss\":1}\n{\"step\":2,\"loss\":1}");
  EXPECT_EQ(read_run(dir("run")).metrics.at("loss").size(), 2u);
}

TEST_F(Report, ReadsWhatAReaderNeedsToKnow) {
  write_run("a", "target", 0.9);
  const RunData run = read_run(dir("a") + "/");
  EXPECT_EQ(run.name, "a");
  EXPECT_EQ(run.method(), "target");
  EXPECT_EQ(run.best()->step, 10);
  EXPECT_EQ(run.last_step(), 20);
  EXPECT_EQ(run.ld_by_state.size(), 2u);
  EXPECT_EQ(run.ld_by_state[1].size(), 20u);
  EXPECT_EQ(run.plan->bytes[0].first, "weights");
  EXPECT_DOUBLE_EQ(*padding_share(run), 0.2);
}

TEST_F(Report, BestIsTheFirstOfEqualAccuracies) {
  write("run", "recipe.json", "{}");
  write("run", "metrics.jsonl",
        "{\"step\":1,\"eval\":{\"accuracy\":0.5}}\n{\"step\":2,\"eval\":{\"accuracy\":0.7}}\n"
        "{\"step\":3,\"eval\":{\"accuracy\":0.7}}\n");
  EXPECT_EQ(read_run(dir("run")).best()->step, 2);
}

TEST_F(Report, AHybridRunIsComparedWithThePapersHybrid) {
  write_run("run", "target", 0.9);
  write("run", "recipe.json", R"({"mode": "target", "hybrid-stop": "60%"})");
  EXPECT_EQ(*hybrid_step(read_run(dir("run"))), 12);
  const std::string html = report("run");
  EXPECT_TRUE(has(html, "<tr class=\"marked\"><td>CALD, hybrid</td>"));
  EXPECT_TRUE(has(html, "distillation ends"));
  EXPECT_TRUE(has(html, "target, distillation until 60%"));
  write("run", "recipe.json", R"({"mode": "target", "hybrid-stop": 7})");
  EXPECT_EQ(*hybrid_step(read_run(dir("run"))), 7);
}

TEST_F(Report, RecipeShowsWhatDiffersFromTheDefaults) {
  write_run("run", "target", 0.9);
  const std::string html = report("run");
  const std::string before_all = html.substr(0, html.find("All settings"));
  EXPECT_TRUE(has(before_all, "<td>batch-size</td><td>8</td><td>32</td>"));
  EXPECT_FALSE(has(before_all, "<td>learning-rate</td>")) << "5e-05 is the default";
  EXPECT_TRUE(has(html, "<td>learning-rate</td><td>5e-5</td><td>5e-5</td>"));
}

TEST_F(Report, DrawsTheDriftWhereItWasMeasured) {
  write_run("run", "finetune", 0.9);
  EXPECT_FALSE(has(report("run"), "Drift by layer"));
  const std::string metrics = slurp(root_ / "run/metrics.jsonl");
  const std::string begun = metrics + R"({"step":0,"of":20,"drift":[0,0,0]})" + "\n" +
                            R"({"step":1,"of":20,"drift":[0.125,0.25,0.75]})" + "\n";
  write("run", "metrics.jsonl", begun);
  const std::string early = report("run");
  EXPECT_TRUE(has(early, "<h2>Drift by layer</h2>"));
  EXPECT_FALSE(has(early, "suits")) << "the run has not ended";
  write("run", "metrics.jsonl", begun + R"({"step":20,"of":20,"drift":[0.375,0.5,1.5]})" + "\n");
  const std::string html = report("run");
  // Half of the mean of the layers is reached at step 1, which is 5 % of the steps.
  for (const char* figure : {"after 1.00 of 20 steps", "50.00 % of it within the first 5 % of the steps",
                             "mode waypoint suits", "half of the drift", "<td class=\"right\">0.375</td>", "layer 2"})
    EXPECT_TRUE(has(html, figure)) << figure;
  EXPECT_EQ(count(html, "<h2>Drift by layer</h2>"), 1u);
  EXPECT_EQ(read_run(dir("run")).metrics.count("of"), 0u) << "no metric of the steps";
}

TEST_F(Report, ComparesRunsSideBySide) {
  write_run("teacher", "finetune", 0.90);
  write_run("unguided", "unguided", 0.80);
  write_run("target", "target", 0.88);
  write_run("other", "trajectory", 0.85);
  const std::string output = dir("teacher") + "/all.html";
  write_comparison({dir("teacher"), dir("unguided"), dir("target"), dir("other")}, output);
  const std::string html = slurp(output);
  EXPECT_TRUE(has(html,
                  "<tr class=\"marked\"><td>target</td><td>target</td><td class=\"right\">88.00 %</td><td "
                  "class=\"right\">10</td><td class=\"right\">80.00 %</td><td class=\"right\">93.3 %</td></tr>"));
  EXPECT_TRUE(has(html,
                  "<tr><td>unguided</td><td>unguided</td><td class=\"right\">80.00 %</td><td "
                  "class=\"right\">10</td><td class=\"right\">-</td><td class=\"right\">83.6 %</td></tr>"));
  EXPECT_TRUE(has(html,
                  "<tr><td>other</td><td class=\"right\">1 min 23 s</td><td class=\"right\">500 ms</td><td "
                  "class=\"right\">1600</td><td class=\"right\">6.00 MiB</td><td class=\"right\">4.00 MiB</td><td "
                  "class=\"right\">20.00 %</td></tr>"));
  EXPECT_EQ(count(html, "<tr class=\"marked\">"), 1u);
  EXPECT_TRUE(has(html, "<td>mode</td><td>finetune</td><td>unguided</td><td>target</td><td>trajectory</td>"));
  EXPECT_FALSE(has(html, "<td>batch-size</td>")) << "the same in all";
  EXPECT_GE(count(html, "<circle"), 16u) << "four evaluations of four runs";
}

TEST_F(Report, ComparesRunsThatLackFiles) {
  write("a", "recipe.json", R"({"mode": "target"})");
  write("b/a", "recipe.json", R"({"mode": "target"})");
  const std::string output = dir("all.html");
  write_comparison({dir("a"), dir("b/a")}, output);
  EXPECT_TRUE(has(slurp(output), "<td>" + dir("b/a") + "</td>")) << "equal names are told apart";
  EXPECT_TRUE(has(slurp(output), "No run has an evaluation."));
  EXPECT_TRUE(has(error_of([&] { write_comparison({}, output); }, ErrorKind::usage), "no run directory"));
}

}  // namespace
}  // namespace cald
