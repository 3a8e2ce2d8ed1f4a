// The benchmarks of the kernels: that each kernel has one, and what they write.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "bench/kernel_bench.h"
#include "engine/base/error.h"
#include "tests/data/temp_folder.h"
#include "train/planned_memory.h"

namespace cald {
namespace {

namespace fs = std::filesystem;

KernelBenchOptions once(const std::string& json) {
  KernelBenchOptions o;
  o.shapes = {parse_shape("2,6,24,3")};
  o.iterations = o.repetitions = 1;
  o.exec = exec_on(Device::cpu, 2);
  o.json = json;
  return o;
}

void run_quietly(const KernelBenchOptions& o) {
  std::FILE* out = std::fopen("/dev/null", "w");
  run_kernel_benchmarks(o, out);
  std::fclose(out);
}

/// The names of all launches, from the headers that declare them.
std::set<std::string> launches() {
  std::set<std::string> names;
  const std::regex name("static constexpr const char\\* name = \"([a-z_]+)\"");
  for (const auto& e : fs::directory_iterator(CALD_SOURCE_DIR "/kernels")) {
    if (e.path().extension() != ".h") continue;
    const std::string text = content_of(e.path().string());
    for (std::sregex_iterator i(text.begin(), text.end(), name), end; i != end; ++i) names.insert((*i)[1]);
  }
  return names;
}

TEST(KernelBench, EveryLaunchHasOne) {
  TempFolder folder;
  KernelBenchOptions o = once(folder / "all.json");
  o.repetitions = 2;  // with their statistics
  run_quietly(o);
  const auto result = nlohmann::json::parse(content_of(folder / "all.json"));
  std::set<std::string> measured;
  for (const auto& b : result.at("benchmarks")) {
    const std::string name = b.at("name");
    measured.insert(name.substr(0, name.find('/')));
    EXPECT_NE(name.find("/2,6,24,3"), std::string::npos) << name;
    if (b.at("run_type") != "iteration") continue;  // a deviation may be 0
    EXPECT_GT(b.at("real_time").get<double>(), 0.0) << name;
    EXPECT_GT(b.at("bytes_per_second").get<double>(), 0.0) << name;
  }
  EXPECT_EQ(measured, launches());
}

TEST(KernelBench, FilterChoosesAndRatesFollowFromTheShape) {
  TempFolder folder;
  KernelBenchOptions o = once(folder / "some.json");
  o.filter = "^gemm/ffn_in_dw";
  o.repetitions = 2;
  run_quietly(o);
  const auto benchmarks = nlohmann::json::parse(content_of(folder / "some.json")).at("benchmarks");
  int measured = 0;
  for (const auto& b : benchmarks) {
    if (b.at("run_type") != "iteration") continue;
    ++measured;
    const double seconds = b.at("real_time").get<double>() * 1e-6, flop = 2.0 * (2 * 6) * 24 * 96;
    EXPECT_NEAR(b.at("flop_per_second").get<double>() * seconds, flop, 1e-6 * flop);
  }
  EXPECT_EQ(measured, 2);
}

TEST(KernelBench, AdamWHasOneForEachDtypeOfItsMoments) {
  TempFolder folder;
  KernelBenchOptions o = once(folder / "some.json");
  o.filter = "^adamw/";
  run_quietly(o);
  const auto result = nlohmann::json::parse(content_of(folder / "some.json"));
  std::set<double> bytes_of_parameter;
  for (const auto& b : result.at("benchmarks")) {
    const double seconds = b.at("real_time").get<double>() * 1e-6, parameters = 4 * 24 * 24 + 2 * 24 * 96;
    bytes_of_parameter.insert(std::round(b.at("bytes_per_second").get<double>() * seconds / parameters));
  }
  EXPECT_EQ(bytes_of_parameter, (std::set<double>{20, 28}));
}

TEST(KernelBench, NamesWhatIsWrong) {
  const auto message = [](auto&& call) {
    try {
      call();
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  for (const char* bad : {"", "1", "1,2", "0,2,12", "1,2,12,", "1,2,13", "1,2,12,3,4,5,6", "a,2,12", "1,2,-12"})
    EXPECT_NE(message([&] { parse_shape(bad); }).find("--shape"), std::string::npos) << bad;
  KernelBenchOptions o = once("");
  o.filter = "no such kernel";
  EXPECT_NE(message([&] { run_quietly(o); }).find("matches no benchmark"), std::string::npos);
  o.filter = "(";
  EXPECT_NE(message([&] { run_quietly(o); }).find("not a regular expression"), std::string::npos);
}

TEST(KernelBench, ShapesHaveDefaults) {
  const StepShape s = parse_shape("8,128,768");
  EXPECT_EQ((std::vector<std::int64_t>{s.batch, s.seq, s.hidden, s.heads, s.ffn, s.slots}),
            (std::vector<std::int64_t>{8, 128, 768, 12, 3072, 128}));
  const StepShape t = parse_shape("8,128,64,4,100,32");
  EXPECT_EQ((std::vector<std::int64_t>{t.heads, t.ffn, t.slots}), (std::vector<std::int64_t>{4, 100, 32}));
}

}  // namespace
}  // namespace cald
