// The trace of a run: a file that parses, slices that nest, and the work that the model's shapes say.
#include "models/encoder.h"
#include "tests/train/golden_run.h"
#include "train/kernel_times.h"
#include "train/trace.h"

namespace cald {
namespace {

struct Slice {
  std::string name;
  double begin, end;
  nlohmann::json arguments;
};

/// The slices in the order of their beginnings, outer ones first.
std::vector<Slice> read_slices(const std::string& path) {
  std::vector<Slice> slices;
  const nlohmann::json trace = nlohmann::json::parse(content_of(path));
  for (const auto& e : trace.at("traceEvents")) {
    EXPECT_EQ(e.at("ph"), "X");
    EXPECT_GE(e.at("dur").get<double>(), 0.0);
    const double begin = e.at("ts");
    slices.push_back({e.at("name"), begin, begin + e.at("dur").get<double>(), e.at("args")});
  }
  std::stable_sort(slices.begin(), slices.end(), [](const Slice& a, const Slice& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
  });
  return slices;
}

constexpr double kRounding = 1e-6;  // of sums of microseconds, which are given to the nanosecond

/// The names around each launch's slice, joined by '/'; fails where slices overlap without one holding the other.
std::map<std::string, std::vector<Slice>> nest(const std::vector<Slice>& slices) {
  std::map<std::string, std::vector<Slice>> by_path;
  std::vector<Slice> open;
  for (const Slice& s : slices) {
    while (!open.empty() && open.back().end <= s.begin + kRounding && open.back().begin < s.begin) open.pop_back();
    if (!open.empty()) {
      EXPECT_LE(s.end, open.back().end + kRounding) << s.name << " in " << open.back().name;
    }
    std::string path;
    for (const Slice& o : open) path += o.name + "/";
    if (s.arguments.contains("op"))
      by_path[path + s.name].push_back(s);
    else
      open.push_back(s);
  }
  return by_path;
}

double gemm_flop(const std::map<std::string, std::vector<Slice>>& slices, const std::string& within) {
  double sum = 0;
  for (const auto& [path, all] : slices)
    if (path.find(within) != std::string::npos && path.ends_with("/gemm"))
      for (const Slice& s : all) sum += s.arguments.at("flop").get<double>();
  return sum;
}

/// Multiply-adds of one forward pass's linear layers, twice.
double linear_flop(const EncoderConfig& c, double examples, double tokens) {
  const auto d = static_cast<double>(c.hidden), f = static_cast<double>(c.ffn);
  return 2 * (tokens * static_cast<double>(c.layers) * (4 * d * d + 2 * d * f) +
              examples * (d * d + d * static_cast<double>(c.labels.size())));
}

/// The same of a Linformer: where there are more tokens than slots, keys and values are products of slots, with one
/// more for the bias.
double linformer_flop(const EncoderConfig& c, double examples, double tokens) {
  const auto d = static_cast<double>(c.hidden), slots = examples * c.mixers[0].options.at("k").get<double>();
  const double saved = slots < tokens ? tokens * d * d - slots * (d * d + d) : 0;
  return linear_flop(c, examples, tokens) - 2 * static_cast<double>(c.layers) * 2 * saved;
}

TEST(Trace, NestsAndCountsTheProductsOfEachPass) {
  TempFolder folder;
  RunOptions o = golden_options(read_golden("bert_target_paper"), folder / "run");
  Trace trace(folder / "trace.json", {2, 3});
  train(o, &trace);
  const auto slices = nest(read_slices(folder / "trace.json"));
  const EncoderConfig c = read_encoder_config(ModelDir(folder / "run/model"));
  const auto timing = read_lines(folder / "run/timing.jsonl");
  for (const int step : {2, 3}) {
    const double tokens = timing[static_cast<std::size_t>(step - 1)].at("padded_tokens");
    const auto examples = static_cast<double>(o.batch_size);
    const double forward = linear_flop(c, examples, tokens), student = linformer_flop(c, examples, tokens);
    EXPECT_LT(student, forward) << "the texts have more tokens than slots";
    const std::string at = "step " + std::to_string(step) + "/";
    EXPECT_EQ(gemm_flop(slices, at + "teacher"), forward);
    EXPECT_EQ(gemm_flop(slices, at + "student"), 3 * student) << "the backward has two products for each";
    EXPECT_EQ(gemm_flop(slices, at + "student/backward"), 2 * student);
    EXPECT_EQ(slices.count(at + "student/layer.1/low_rank"), 1u);
    EXPECT_EQ(slices.at(at + "student/layer.1/low_rank").size(), 4u) << "of keys and values, x and ones";
    EXPECT_EQ(slices.at(at + "student/backward/layer.0/attention_backward").size(), 1u);
    std::size_t updates = 0;  // each parameter's as soon as its gradient is complete
    for (const auto& [path, all] : slices)
      if (path.starts_with(at + "student/backward/") && path.ends_with("update/adamw")) updates += all.size();
    EXPECT_EQ(updates, Encoder(c).parameters().all().size());
  }
  for (const auto& [path, all] : slices) {
    EXPECT_TRUE(path.starts_with("step 2/") || path.starts_with("step 3/")) << path;
    for (const Slice& s : all) EXPECT_GT(s.arguments.at("bytes").get<double>(), 0.0) << path;
  }
}

TEST(Trace, OfAShorterRunHoldsItsLastStep) {
  TempFolder folder;
  RunOptions o = golden_options(read_golden("bert_finetune"), folder / "run");
  o.steps = 3;
  o.warmup = {0, false};
  Trace trace(folder / "trace.json", {4, 6});
  train(o, &trace);
  EXPECT_FALSE(std::filesystem::exists(folder / "trace.json"));
  trace.finish();
  std::vector<std::string> steps;
  for (const Slice& s : read_slices(folder / "trace.json"))
    if (s.name.starts_with("step ")) steps.push_back(s.name);
  EXPECT_EQ(steps, std::vector<std::string>{"step 3"});
}

TEST(StepRange, IsReadFromText) {
  EXPECT_EQ(StepRange::parse("2:9", "trace-steps").last, 9);
  EXPECT_EQ(StepRange::parse("7", "trace-steps").first, 7);
  EXPECT_EQ(StepRange::parse("7", "trace-steps").last, 7);
  for (const char* bad : {"", "0:3", "3:2", "1:", ":4", "1:2:3", "a", "1:101", "1.5"})
    EXPECT_THROW(StepRange::parse(bad, "trace-steps"), Error) << bad;
}

TEST(KernelTimes, AddUpEveryLaunchOnce) {
  TempFolder folder;
  const RunOptions o = golden_options(read_golden("bert_finetune"), folder / "run");
  KernelTimes times;
  train(o, &times);
  KernelTimes::Row sum;
  double before = 1e30;
  for (const auto& [kernel, row] : times.rows()) {
    EXPECT_LE(row.seconds, before) << "sorted by time";
    before = row.seconds;
    sum += row;
  }
  EXPECT_EQ(sum.calls, times.total().calls);
  for (const auto& [key, row] : times.launches())
    EXPECT_DOUBLE_EQ(row.cost.bytes, static_cast<double>(row.calls) * key.bytes) << key.kernel << ": of one cost each";
  EXPECT_DOUBLE_EQ(sum.cost.bytes, times.total().cost.bytes);
}

}  // namespace
}  // namespace cald
