// Settings: JSON and flags there and back, precedence, every failure's message, the presets, and that the documents
// name every key.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "engine/base/error.h"
#include "tests/train/usage_message.h"
#include "train/nearest_name.h"
#include "train/option_codec.h"
#include "train/option_io.h"

namespace cald {
namespace {
using nlohmann::json;

std::string json_message(const std::string& text) {
  RunOptions o;
  return usage_message([&] { options_from_json(o, json::parse(text), "r.json"); });
}

std::string flag_message(const std::vector<GivenOption>& given) {
  RunOptions o;
  return usage_message([&] { apply_given(o, given); });
}

/// A text for the setting that is not its default, and valid by itself.
std::string other_text(const OptionInfo& info) {
  if (info.is_switch) return info.default_text == "true" ? "false" : "true";
  if (info.placeholder == "N") return "1" + (info.default_text.empty() ? "28" : info.default_text);
  if (info.placeholder == "X") return "0.3";
  if (info.placeholder == "N|P%" || info.placeholder == "N|P%|auto") return "12.5%";
  if (info.placeholder == "TEXT") return "a \"b\" \\ \xC3\xA4";
  const std::string first = info.placeholder.substr(0, info.placeholder.find('|'));
  return first != info.default_text ? first : info.placeholder.substr(info.placeholder.rfind('|') + 1);
}

bool same(const RunOptions& a, const RunOptions& b) {
  for (const OptionInfo& info : option_list())
    if (option_text(a, info.key) != option_text(b, info.key)) return false;
  return true;
}

RunOptions through_json(const RunOptions& o) {
  RunOptions back;
  options_from_json(back, json::parse(options_to_json(o).dump()), "r.json");
  return back;
}

TEST(Options, EveryKeyIsOfItsOwnAndHasHelp) {
  std::set<std::string> keys;
  for (const OptionInfo& info : option_list()) {
    EXPECT_TRUE(keys.insert(info.key).second) << info.key;
    EXPECT_FALSE(info.help.empty()) << info.key;
    EXPECT_EQ(info.key.find('_'), std::string::npos) << info.key;
  }
  EXPECT_GT(keys.size(), 50u);
}

TEST(Options, EachSettingGoesThroughFlagsAndJson) {
  for (const OptionInfo& info : option_list()) {
    RunOptions o;
    // A run in which the setting means something.
    if (info.key != "mode") o.mode = Mode::trajectory;
    if (info.key == "teacher") o.mode = Mode::target;
    if (info.key == "waypoints" || info.key == "map-teacher") o.mode = Mode::waypoint;
    if (info.key == "keep-waypoints" || info.key == "drift") o.mode = Mode::finetune;
    if (info.key == "waypoint-spacing") o.mode = Mode::finetune, o.keep_waypoints = 2;
    if (info.key == "drift-inputs") o.mode = Mode::finetune, o.drift = true;
    if (info.key == "drift-from") apply_given(o, {{"hybrid-stop", "auto"}});
    if (info.key == "hybrid-stop-terms") o.hybrid_stop = StepOrShare{5, false};
    if (info.key == "evaluate-every") o.dev = "dev.tsv";
    const std::string text = other_text(info);
    ASSERT_NE(text, info.default_text) << info.key;
    apply_given(o, {{info.key, text}});
    EXPECT_EQ(option_text(o, info.key), text);
    const auto j = options_to_json(o);
    EXPECT_TRUE(j.contains(info.key)) << info.key;
    const RunOptions back = through_json(o);
    EXPECT_EQ(option_text(back, info.key), text);
    EXPECT_TRUE(same(o, back)) << info.key;
  }
}

TEST(Options, DefaultsGoThroughJsonInTheVisitorsOrder) {
  const RunOptions o;
  EXPECT_TRUE(same(o, through_json(o)));
  std::vector<std::string> order;
  for (const OptionInfo& info : option_list()) order.push_back(info.key);
  std::size_t at = 0;
  const auto j = options_to_json(o);
  for (const auto& [key, value] : j.items()) {
    while (at < order.size() && order[at] != key) ++at;
    ASSERT_LT(at, order.size()) << key << " is out of order";
  }
  EXPECT_FALSE(options_to_json(o).contains("teacher"));
  EXPECT_FALSE(options_to_json(o).contains("dropout"));
}

TEST(Options, DoublesKeepTheirBits) {
  for (const double v : {0.1, 1.0 / 3, 5e-5, 1.5e-6, 1e300, 4.9e-324, 0.07, 123456789.123456789, 2.0}) {
    RunOptions o;
    o.learning_rate = v;
    const double back = through_json(o).learning_rate;
    EXPECT_EQ(std::memcmp(&v, &back, sizeof v), 0) << v;
    double text_back = 0;
    ASSERT_TRUE(parse_finite(shortest_text(v), text_back));
    EXPECT_EQ(std::memcmp(&v, &text_back, sizeof v), 0) << shortest_text(v);
  }
  EXPECT_EQ(shortest_text(5e-5), "5e-5");
  EXPECT_EQ(shortest_text(1e300), "1e300");
  EXPECT_EQ(shortest_text(0.06), "0.06");
}

TEST(Options, LargestIntegersKeepTheirBits) {
  RunOptions o;
  o.seed = ~std::uint64_t{0};
  EXPECT_EQ(through_json(o).seed, ~std::uint64_t{0});
  EXPECT_NE(json_message(R"({"seed": -1})").find("not negative"), std::string::npos);
  EXPECT_NE(json_message(R"({"threads": 18446744073709551615})").find("a whole number"), std::string::npos);
}

TEST(Options, SharesAreWrittenInPerCentAndKeepTheirBits) {
  using Codec = OptionCodec<StepOrShare>;
  for (const double v : {0.0, 0.06, 0.07, 0.29, 0.6, 1.0, 0.125, 1.0 / 3, 0.001, 1e-7}) {
    StepOrShare back;
    const std::string text = Codec::text({v, true});
    ASSERT_TRUE(Codec::parse(text, back)) << text;
    EXPECT_TRUE(back.is_share);
    EXPECT_EQ(std::memcmp(&v, &back.value, sizeof v), 0) << text;
  }
  EXPECT_EQ(Codec::text({0.07, true}), "7%");
  EXPECT_EQ(Codec::text({0.125, true}), "12.5%");
  EXPECT_EQ(Codec::text({1.0, true}), "100%");
  EXPECT_EQ(Codec::text({0.001, true}), "0.1%");
  EXPECT_EQ(Codec::text({1e-5, true}), "0.001%");
  EXPECT_EQ(Codec::text({0, true}), "0%");
  EXPECT_EQ(Codec::text({300, false}), "300");
  RunOptions o;
  options_from_json(o, json::parse(R"({"warmup": 20})"), "r.json");
  EXPECT_EQ(o.warmup.of(1000), 20);
  options_from_json(o, json::parse(R"({"warmup": "20"})"), "r.json");
  EXPECT_EQ(o.warmup.of(1000), 20);
  options_from_json(o, json::parse(R"({"warmup": "20%"})"), "r.json");
  EXPECT_EQ(o.warmup.of(1000), 200);
}

TEST(Options, AreResetByKey) {
  RunOptions o;
  o.batch_size = 7, o.dropout = 0.1, o.teacher = "t", o.clip = 2;
  reset_options(o, [](std::string_view key) { return key == "batch-size" || key == "dropout" || key == "teacher"; });
  EXPECT_EQ(o.batch_size, RunOptions().batch_size);
  EXPECT_FALSE(o.dropout);
  EXPECT_TRUE(o.teacher.empty());
  EXPECT_EQ(o.clip, 2);
}

TEST(Options, NullSetsAnOptionalSettingBack) {
  RunOptions o;
  o.dropout = 0.1;
  options_from_json(o, json::parse(R"({"dropout": null})"), "r.json");
  EXPECT_FALSE(o.dropout.has_value());
  o.teacher = "t", o.memory_budget = "2GiB";
  options_from_json(o, json::parse(R"({"teacher": null, "memory-budget": null})"), "r.json");
  EXPECT_TRUE(o.teacher.empty() && o.memory_budget.empty());
  EXPECT_EQ(json_message(R"({"clip": null})"), "r.json: key 'clip': got null, wanted a number");
}

TEST(Options, UnknownKeysNameTheNearestOne) {
  EXPECT_EQ(json_message(R"({"learning_rate": 1})"),
            "r.json: unknown key 'learning_rate', the nearest known one is 'learning-rate'");
  EXPECT_EQ(json_message(R"({"Temprature": 1})"),
            "r.json: unknown key 'Temprature', the nearest known one is 'temperature'");
  EXPECT_EQ(flag_message({{"step", "3"}}), "unknown flag --step, the nearest known one is --steps");
}

TEST(Options, WrongTypesSayWhatCameAndWhatIsAccepted) {
  EXPECT_EQ(json_message(R"({"batch-size": "32"})"), "r.json: key 'batch-size': got \"32\", wanted a whole number");
  EXPECT_EQ(json_message(R"({"batch-size": 1.5})"), "r.json: key 'batch-size': got 1.5, wanted a whole number");
  EXPECT_EQ(json_message(R"({"bucket": "true"})"), "r.json: key 'bucket': got \"true\", wanted true or false");
  EXPECT_EQ(json_message(R"({"clip": true})"), "r.json: key 'clip': got true, wanted a number");
  EXPECT_EQ(json_message(R"({"model": 3})"), "r.json: key 'model': got 3, wanted a text");
  EXPECT_EQ(json_message(R"({"mixer-share": "kv"})"),
            "r.json: key 'mixer-share': got \"kv\", wanted none, key-value or layerwise");
  EXPECT_EQ(json_message(R"({"warmup": 0.06})"),
            "r.json: key 'warmup': got 0.06, wanted a number of steps (300), or a share of them (\"60%\")");
  EXPECT_EQ(json_message("[1]"), "r.json: got array, wanted a JSON object with a key for each setting");
  const std::string longest = json_message(R"({"steps": ")" + std::string(500, 'x') + R"("})");
  EXPECT_LT(longest.size(), 160u);
  EXPECT_EQ(flag_message({{"steps", "ten"}}), "--steps: got 'ten', wanted a whole number");
  EXPECT_EQ(flag_message({{"steps", "99999999999999999999"}}),
            "--steps: got '99999999999999999999', wanted a whole number");
  EXPECT_EQ(flag_message({{"learning-rate", "nan"}}), "--learning-rate: got 'nan', wanted a number");
  EXPECT_EQ(flag_message({{"learning-rate", "1e999"}}), "--learning-rate: got '1e999', wanted a number");
  EXPECT_EQ(flag_message({{"clip", ""}}), "--clip: got '', wanted a number");
  EXPECT_EQ(flag_message({{"bucket", "yes"}}), "--bucket: got 'yes', wanted true or false");
  EXPECT_EQ(flag_message({{"preset", "Paper"}}), "--preset: got 'Paper', wanted released or paper");
  for (const char* bad : {"%", "x%", "1e1%", "-", "0.5", "60 %"})
    EXPECT_NE(flag_message({{"warmup", bad}}).find("wanted a number of steps"), std::string::npos) << bad;
}

TEST(Options, StepsAndEpochsOfOneSourceExcludeEachOther) {
  EXPECT_EQ(json_message(R"({"steps": 5, "epochs": 2})"),
            "r.json: 'steps' and 'epochs' are both given, wanted one of them");
  EXPECT_EQ(flag_message({{"steps", "5"}, {"epochs", "2"}}), "--steps and --epochs are both given, wanted one of them");
  RunOptions o;
  options_from_json(o, json::parse(R"({"steps": null, "epochs": 2})"), "r.json");
  EXPECT_EQ(o.epochs, 2);
}

class RecipeFile : public testing::Test {
 protected:
  std::string write(const std::string& text) {
    path_ = std::filesystem::path(testing::TempDir()) /
            (std::string("recipe_") + testing::UnitTest::GetInstance()->current_test_info()->name() + ".json");
    std::ofstream(path_) << text;
    return path_.string();
  }
  void TearDown() override { std::filesystem::remove(path_); }
  std::filesystem::path path_;
};

TEST_F(RecipeFile, FlagsWinOverTheFileAndTheFileOverDefaults) {
  RunOptions o;
  load_recipe(o, write(R"({"batch-size": 8, "seed": 3, "bucket": false, "steps": 10})"));
  apply_given(o, {{"seed", "4"}});
  EXPECT_EQ(o.batch_size, 8);
  EXPECT_EQ(o.seed, 4u);
  EXPECT_FALSE(o.bucket);
  EXPECT_EQ(o.accumulate, RunOptions{}.accumulate);
  EXPECT_EQ(o.steps, 10);
  // A flag's default value is a value too.
  apply_given(o, {{"batch-size", "32"}});
  EXPECT_EQ(o.batch_size, 32);
  // The length: the flag's way of saying it wins over the file's.
  apply_given(o, {{"epochs", "2"}});
  EXPECT_FALSE(o.steps.has_value());
  EXPECT_EQ(o.epochs, 2);
  apply_given(o, {{"steps", "7"}});
  EXPECT_EQ(o.steps, 7);
  EXPECT_FALSE(options_to_json(o).contains("epochs"));
}

TEST_F(RecipeFile, FailuresAreUsageErrorsThatNameTheFile) {
  RunOptions o;
  const std::string path = write(R"({"steps": 10,})");
  EXPECT_EQ(usage_message([&] { load_recipe(o, path); }).find(path + ": not JSON"), 0u);
  write(R"({"steps": 1, "steps": 2})");
  EXPECT_EQ(usage_message([&] { load_recipe(o, path); }).find(path + ": key 'steps' stands twice"), 0u);
  write(R"({"stepz": 1})");
  EXPECT_EQ(usage_message([&] { load_recipe(o, path); }),
            path + ": unknown key 'stepz', the nearest known one is 'steps'");
  EXPECT_EQ(usage_message([&] { load_recipe(o, path + ".no"); }).find(path + ".no: "), 0u);
}

TEST(Options, PresetsFillWhatIsNotSet) {
  RunOptions o;
  resolve_preset(o);
  EXPECT_TRUE(*o.kd_squared && *o.ld_embeddings && *o.ld_pads);
  EXPECT_EQ(o.ld_reduce, Reduce::sum);
  o = {};
  o.preset = Preset::paper;
  resolve_preset(o);
  EXPECT_FALSE(*o.kd_squared || *o.ld_embeddings || *o.ld_pads);
  EXPECT_EQ(o.ld_reduce, Reduce::mean);
  o = {};
  o.preset = Preset::paper;
  o.kd_squared = true;
  o.ld_reduce = Reduce::sum;
  resolve_preset(o);
  EXPECT_TRUE(*o.kd_squared);
  EXPECT_EQ(o.ld_reduce, Reduce::sum);
  EXPECT_FALSE(*o.ld_pads);
  o = {};
  o.ld_pads = o.ld_embeddings = false;
  resolve_preset(o);
  EXPECT_FALSE(*o.ld_pads || *o.ld_embeddings);
  EXPECT_TRUE(*o.kd_squared);
}

TEST(NearestName, CountsEditsAndSwaps) {
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("abc", "abc"), 0);
  EXPECT_EQ(edit_distance("abc", "acb"), 1);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("seed", "sede"), 1);
  EXPECT_EQ(nearest_name("x", {}), "");
  EXPECT_EQ(nearest_name("stesp", {"seed", "steps", "epochs"}), "steps");
}

TEST(Documents, RecipesListsEveryKeyWithItsDefault) {
  std::ifstream file(std::string(CALD_SOURCE_DIR) + "/docs/recipes.md");
  std::stringstream text;
  text << file.rdbuf();
  const std::string doc = text.str();
  ASSERT_FALSE(doc.empty());
  for (const OptionInfo& info : option_list()) {
    const auto row = doc.find("| `" + info.key + "` |");
    ASSERT_NE(row, std::string::npos) << "docs/recipes.md lacks a row of the key " << info.key;
    const std::string line = doc.substr(row, doc.find('\n', row) - row);
    if (info.default_text.empty()) continue;
    EXPECT_NE(line.find("| `" + info.default_text + "` |"), std::string::npos)
        << info.key << " has the default " << info.default_text << ", docs/recipes.md says: " << line;
  }
  // And no key that is gone.
  for (auto at = doc.find("\n| `"); at != std::string::npos; at = doc.find("\n| `", at + 1)) {
    const auto from = at + 4;
    const std::string key = doc.substr(from, doc.find('`', from) - from);
    bool known = false;
    for (const OptionInfo& info : option_list()) known |= info.key == key;
    EXPECT_TRUE(known) << "docs/recipes.md has a row of " << key << ", which is no setting";
  }
}

}  // namespace
}  // namespace cald
