// Command lines and outputs that cannot mean, or cannot do, what they say.
#include <algorithm>

#include "tests/app/edit_model.h"

namespace cald {
namespace {

constexpr const char* kData = "sentence\tlabel\na good film\t1\nthe plot is bad\t0\n";
const std::string kModel = " '" + kGolden + "models/bert_h36' ";

TEST(CommandLines, NumbersBeyondAllUseAreRefusedWithTheirRange) {
  TempFolder f;
  f.put("good.tsv", kData);
  const std::string run = "--train good.tsv --steps 2 --output run ", data = "good.tsv ";
  expect_refused(
      f, {{"finetune" + kModel + run + "--threads 100000", 2, "threads is 100000, wanted 0 to 1024"},
          {"plan" + kModel + "--train good.tsv --threads 5000000000", 2, "wanted 0 to 1024"},
          {"predict" + kModel + "film --threads 5000000000", 2, "--threads: got '5000000000', wanted a whole number"},
          {"states" + kModel + "--input i --output o --threads 2000", 2, "from 0 to 1024"},
          {"bench --threads 2000", 2, "from 0 to 1024"},
          {"evaluate" + kModel + data + "--max-length 0", 2, "--max-length: got '0', wanted a whole number from 3"},
          {"evaluate" + kModel + data + "--max-length -5", 2, "--max-length: got '-5'"},
          {"evaluate" + kModel + data + "--batch-size 0", 2, "--batch-size: got '0', wanted a whole number from 1 to"},
          {"evaluate" + kModel + data + "--batch-size 9999999999", 2, "from 1 to 1048576"},
          {"drift run --inputs x", 2, "--inputs: got 'x'"},
          {"finetune" + kModel + run + "--batch-size 9999999999", 2, "wanted 1 to 1048576"}});
}

TEST(CommandLines, SettingsWithoutEffectAreRefused) {
  TempFolder f;
  f.put("good.tsv", kData);
  const std::string run = "finetune" + kModel + "--train good.tsv --steps 2 --output run --max-length 20 ";
  expect_refused(f, {{run + "--micro-batches 64", 2, "micro-batches is 64, wanted at most batch-size (32)"},
                     {run + "--recompute 3", 2, "recompute is 3, but the model has 2 layers"},
                     {run + "--trace-steps 1:2", 2, "--trace-steps requires --trace"},
                     {run + "--trace t.json --trace-steps 9:12", 2, "--trace-steps 9:12: the run has 2 steps"},
                     {run + "--keep-waypoints 3", 2, "keep-waypoints is 3, but the run has 2 steps"},
                     {"predict" + kModel + "film --file good.tsv", 2, "a text and --file are both given"},
                     {"predict" + kModel + "film --pairs --pair plot", 2, "--pairs and --pair are both given"},
                     {"predict" + kModel + "film --pairs", 1, "text:1: has 0 tabs, wanted two texts with one"}});
}

TEST(CommandLines, ARecipeOfAnotherCommandIsRefused) {
  TempFolder f;
  f.put("target.json", R"({"mode": "target"})");
  const std::string run = kModel + "--train good.tsv --output run ";
  expect_refused(f, {{"finetune" + run + "--recipe target.json", 2, "mode is target, which is for 'cald convert'"},
                     {"convert" + run + "--mode finetune", 2, "mode is finetune, which is for 'cald finetune'"}});
}

TEST(CommandLines, AFlagOfAnotherCommandIsSaidToBelongThere) {
  TempFolder f;
  expect_refused(f, {{"finetune m --teacher t", 2, "the flag '--teacher' belongs to convert, plan, bench step, not to"},
                     {"evaluate m d.tsv --keep-waypoints=3", 2, "belongs to finetune, plan, not to evaluate"},
                     {"finetune m --teachr t", 2, "unknown flag '--teachr'"}});
}

TEST(CommandLines, NothingIsWrittenOverWhatIsRead) {
  TempFolder f;
  f.put("good.tsv", kData);
  fs::copy(kGolden + "models/bert_h36/io.safetensors", f / "io.safetensors");
  const std::string io = content_of(f / "io.safetensors");
  expect_refused(f, {{"prepare sst2 good.tsv --output ./good.tsv", 2, "good.tsv is read"},
                     {"prepare split good.tsv --output a.tsv --held-out good.tsv --hold-out 1", 2, "good.tsv is read"},
                     {"prepare sst2 other.tsv --exclude good.tsv --output good.tsv", 2, "good.tsv is read"},
                     {"evaluate" + kModel + "good.tsv --json good.tsv", 2, "--json good.tsv is the data"},
                     {"states" + kModel + "--input io.safetensors --output ./io.safetensors", 2, "is the input"}});
  EXPECT_EQ(content_of(f / "good.tsv"), kData);
  EXPECT_EQ(content_of(f / "io.safetensors"), io);
}

TEST(CommandLines, AResultThatCannotBeWrittenIsNoSuccess) {
  TempFolder f;
  f.put("good.tsv", kData);
  for (const std::string& command : {"inspect" + kModel, "predict" + kModel + "film", "evaluate" + kModel + "good.tsv",
                                     "plan" + kModel + "--train good.tsv --mixer-k 4 --max-length 20",
                                     std::string("finetune --help"), std::string("--version")}) {
    const Result r = cald(f, command + " >/dev/full");
    EXPECT_EQ(r.code, 1) << command;
    EXPECT_EQ(r.err.substr(0, 35), "cald: standard output: cannot write") << command;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << command << ": " << r.err;
  }
}

TEST(CommandLines, AMissingDirectoryIsTheSameErrorEverywhere) {
  TempFolder f;
  expect_refused(f, {{"report nothere", 1, "nothere: no such run directory"},
                     {"drift nothere", 1, "nothere: no such run directory"},
                     {"inspect nothere", 1, "nothere: no such model directory"}});
}

TEST(CommandLines, TheVersionIsOneLine) {
  TempFolder f;
  const Result r = cald(f, "--version");
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(r.out.substr(0, 5), "cald ");
  EXPECT_EQ(std::count(r.out.begin(), r.out.end(), '\n'), 1) << r.out;
}

TEST(CommandLines, AMemoryBudgetMayBeANumberOfARecipe) {
  TempFolder f;
  f.put("good.tsv", kData);
  f.put("r.json", R"({"memory-budget": 1000000000, "mixer-k": 4, "max-length": 20, "train": "good.tsv"})");
  const Result r = cald(f, "plan" + kModel + "--recipe r.json");
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_CONTAINS(r.out, "largest batch within 1000000000");
}

}  // namespace
}  // namespace cald
