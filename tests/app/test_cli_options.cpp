// The flags of a command line: forms, precedence over a recipe, errors with the nearest known name.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "app/cli_options.h"
#include "engine/base/error.h"

namespace cald {
namespace {

/// A program with two commands, of which convert has all settings.
struct Program {
  Program() {
    app.require_subcommand(1);
    convert = app.add_subcommand("convert", "");
    app.add_subcommand("evaluate", "")->add_option("--json", json, "");
    RunOptions defaults;
    defaults.mode = Mode::unguided;
    parser.add_options(
        *convert, defaults, [](std::string_view key) { return key != "keep-waypoints"; }, "model");
  }
  RunOptions run(std::vector<const char*> words) {
    words.insert(words.begin(), "cald");
    parse_command_line(app, static_cast<int>(words.size()), words.data());
    RunOptions o;
    parser.apply(o);
    return o;
  }
  std::string message(const std::vector<const char*>& words) {
    try {
      run(words);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::usage);
      EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos);
      return e.what();
    }
    ADD_FAILURE() << "nothing was thrown";
    return "";
  }

  CLI::App app{"", "cald"};
  CLI::App* convert = nullptr;
  OptionParser parser;
  std::string json;
};

TEST(CommandLine, TakesEveryForm) {
  const RunOptions o = Program().run({"convert", "models/m", "--batch-size", "8", "--seed=7", "--no-bucket",
                                      "--ld-pads=false", "--kd-squared", "--warmup", "10%", "--a-kd=-1", "--clip", "-2",
                                      "--layers", "0,2,4-5", "--dev", ""});
  EXPECT_EQ(o.model, "models/m");
  EXPECT_EQ(o.batch_size, 8);
  EXPECT_EQ(o.seed, 7u);
  EXPECT_FALSE(o.bucket);
  EXPECT_EQ(o.ld_pads, false);
  EXPECT_EQ(o.kd_squared, true);
  EXPECT_EQ(o.warmup.of(100), 10);
  EXPECT_EQ(o.a_kd, -1);
  EXPECT_EQ(o.clip, -2);
  EXPECT_EQ(o.layers, "0,2,4-5");
  EXPECT_FALSE(o.ld_embeddings.has_value());
}

TEST(CommandLine, TheModelMayStandAfterItsFlagToo) { EXPECT_EQ(Program().run({"convert", "--model", "m"}).model, "m"); }

TEST(CommandLine, TheLastOfTwoCounts) {
  const RunOptions o = Program().run({"convert", "--seed", "1", "--seed", "2", "--bucket", "--no-bucket"});
  EXPECT_EQ(o.seed, 2u);
  EXPECT_FALSE(o.bucket);
}

TEST(CommandLine, OnlyGivenFlagsAreReported) {
  Program p;
  p.run({"convert", "--seed", "0"});
  ASSERT_EQ(p.parser.given().size(), 1u);
  EXPECT_EQ(p.parser.given()[0].key, "seed");
}

TEST(CommandLine, FlagsWinOverTheRecipeWhereverItStands) {
  const auto path = std::filesystem::path(testing::TempDir()) / "cli_recipe.json";
  std::ofstream(path) << R"({"seed": 3, "batch-size": 8, "bucket": false, "steps": 10, "mode": "trajectory"})";
  const std::string file = path.string();
  const RunOptions o = Program().run({"convert", "--seed", "4", "--recipe", file.c_str(), "--bucket", "--epochs", "2"});
  EXPECT_EQ(o.seed, 4u);
  EXPECT_EQ(o.batch_size, 8);
  EXPECT_TRUE(o.bucket);
  EXPECT_EQ(o.mode, Mode::trajectory);
  EXPECT_FALSE(o.steps.has_value());
  EXPECT_EQ(o.epochs, 2);
  std::filesystem::remove(path);
}

TEST(CommandLine, UnknownFlagsNameTheNearestKnownOne) {
  EXPECT_EQ(Program().message({"convert", "--learning_rate=3"}),
            "unknown flag '--learning_rate', the nearest known one is --learning-rate");
  EXPECT_EQ(Program().message({"convert", "m", "--no-buckets"}),
            "unknown flag '--no-buckets', the nearest known one is --no-bucket");
  EXPECT_EQ(Program().message({"evaluate", "--jsn", "x"}), "unknown flag '--jsn', the nearest known one is --json");
  EXPECT_EQ(Program().message({"convrt", "m"}), "unknown command 'convrt', the nearest known one is 'convert'");
  EXPECT_EQ(Program().message({"convert", "m", "n"}), "unexpected argument 'n'");
  // A flag that this command was not given.
  EXPECT_EQ(Program().message({"convert", "--keep-waypoints", "3"}).find("unknown flag '--keep-waypoints'"), 0u);
}

TEST(CommandLine, ValuesThatAreMissingOrWrongAreNamed) {
  EXPECT_EQ(Program().message({"convert", "m", "--train", "--dev"}), "--train: wanted a value, got the flag '--dev'");
  EXPECT_EQ(Program().message({"convert", "m", "--recipe", "--dev"}), "--recipe: wanted a file, got the flag '--dev'");
  EXPECT_NE(Program().message({"convert", "--seed"}).find("--seed"), std::string::npos);
  EXPECT_EQ(Program().message({"convert", "--bucket=perhaps"}), "--bucket: got 'perhaps', wanted true or false");
  EXPECT_EQ(Program().message({"convert", "--seed", "x"}), "--seed: got 'x', wanted a whole number, not negative");
  EXPECT_NE(Program().message({}).find("a command is missing, wanted one of "), std::string::npos);
}

TEST(CommandLine, HelpListsKeysDefaultsAndUnits) {
  Program p;
  try {
    p.run({"convert", "--help"});
    FAIL();
  } catch (const CLI::Success&) {
  }
  const std::string help = p.convert->help();
  for (const OptionInfo& info : option_list())
    EXPECT_EQ(p.convert->get_option_no_throw("--" + info.key) != nullptr, info.key != "keep-waypoints") << info.key;
  EXPECT_NE(help.find("--learning-rate X=5e-5"), std::string::npos) << help;
  EXPECT_NE(help.find("--warmup N|P%=6%"), std::string::npos);
  EXPECT_NE(help.find("=unguided"), std::string::npos) << "the command's own default";
  EXPECT_NE(help.find("(shuffled order only) [yes]"), std::string::npos);
}

}  // namespace
}  // namespace cald
