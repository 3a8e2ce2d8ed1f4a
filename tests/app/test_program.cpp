// The program as a user runs it, and bad input of every kind.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/app/run_program.h"

namespace cald {
namespace {

struct BadCase {
  const char* name;
  std::string arguments;
  int code;
  const char* message;
};

/// Writes the files that the cases below name.
void make_inputs(const TempFolder& f) {
  f.put("good.tsv", "sentence\tlabel\na good film\t1\nthe plot is bad\t0\n");
  f.put("no-column.tsv", "words\tlabel\na good film\t1\n");
  f.put("label.tsv", "sentence\tlabel\na good film\t7\n");
  f.put("broken.tsv", "sentence\tlabel\nfine\t1\na \xff film\t1\n");
  f.put("empty.tsv", "");
  f.put("typo.json", R"({"learning-rat": 1e-4})");
  f.put("both.json", R"({"steps": 3, "epochs": 2})");
  fs::copy(kGolden + "models/bert_h36", f / "cut");
  fs::resize_file(f / "cut/model.safetensors", 2000);
  fs::copy(kGolden + "models/bert_h36", f / "no-vocab");
  fs::remove(f / "no-vocab/vocab.txt");
  fs::copy(kGolden + "models/bert_h36", f / "wide");
  std::string config = content_of(f / "wide/config.json");
  config.replace(config.find("\"intermediate_size\": 56"), 23, "\"intermediate_size\": 57");
  f.put("wide/config.json", config);
}

TEST(Program, BadInputGivesOneLineAnExitCodeAndLeavesNothing) {
  TempFolder f;
  make_inputs(f);
  const std::string model = "'" + kGolden + "models/bert_h36'",
                    teacher = "'" + kGolden + "steps/models/bert_finetuned/waypoints/2'";
  const std::string run = " --output run --steps 2 --max-length 20 --threads 1";
  const BadCase cases[] = {
      {"truncated weights", "finetune cut --train good.tsv" + run, 1, "model.safetensors"},
      {"config and tensors disagree", "finetune wide --train good.tsv" + run, 1, "wanted [57, 36]"},
      {"no vocabulary", "finetune no-vocab --train good.tsv" + run, 1, "no-vocab"},
      {"no column", "finetune " + model + " --train no-column.tsv" + run, 1, "'words'"},
      {"unknown label", "finetune " + model + " --train label.tsv" + run, 1, "label.tsv:2"},
      {"broken UTF-8", "finetune " + model + " --train broken.tsv" + run, 1, "broken.tsv:3"},
      {"empty file", "finetune " + model + " --train empty.tsv" + run, 1, "empty.tsv"},
      {"no file", "finetune " + model + " --train nowhere.tsv" + run, 1, "nowhere.tsv"},
      {"too long", "finetune " + model + " --train good.tsv --max-length 600 --output run --steps 2", 2,
       "33 positions"},
      {"misspelt key", "finetune " + model + " --recipe typo.json --train good.tsv" + run, 2, "learning-rate"},
      {"misspelt flag", "finetune " + model + " --train good.tsv --learning-rat 1" + run, 2, "learning-rate"},
      {"contradiction", "finetune " + model + " --recipe both.json --train good.tsv --output run", 2, "epochs"},
      {"teacher without a teacher's mode",
       "convert " + model + " --mode unguided --teacher " + teacher + " --train good.tsv" + run, 2, "teacher"},
      {"no mixer", "convert " + model + " --mode unguided --mixer linformr --train good.tsv" + run, 2, "linformer"},
      {"no layer", "convert " + model + " --mode unguided --layers 5 --train good.tsv" + run, 2, "0 to 1"},
      {"no GPU", "finetune " + model + " --device cuda --train good.tsv" + run, 1, "CUDA"},
      {"over budget", "finetune " + model + " --memory-budget 10KiB --train good.tsv" + run, 2, "memory-budget"},
      {"no command", "fintune", 2, "finetune"},
      {"no model", "evaluate nowhere --data good.tsv", 1, "nowhere"},
  };
  const std::set<std::string> before = f.names();
  for (const BadCase& c : cases) {
    const Result r = cald(f, c.arguments);
    expect_one_line_error(r, c.code, c.message, c.name);
    EXPECT_EQ(f.names(), before) << c.name;
    fs::remove_all(f / "run");
  }
}

TEST(Program, AReplacedHeadIsReportedAsNew) {
  TempFolder f;
  make_inputs(f);
  const Result r =
      cald(f, "finetune '" + kGolden + "models/bert_h36' --train good.tsv --output run --steps 1 --new-head");
  ASSERT_EQ(r.code, 0) << r.err;
  const auto report = nlohmann::json::parse(content_of(f / "run/conversion.json"));
  EXPECT_EQ(report.at("new"), (nlohmann::json{"classifier.weight", "classifier.bias"}));
  EXPECT_EQ(report.at("dropped").size(), 2u);
}

TEST(Program, ARunGoesOnFromItsRecipeAlone) {
  TempFolder f;
  make_inputs(f);
  const std::string model = "'" + kGolden + "models/bert_h36'";
  const std::string flags = " --mode unguided --mixer-k 4 --train good.tsv --steps 6 --max-length 20 --threads 1";
  ASSERT_EQ(cald(f, "convert " + model + flags + " --output whole").code, 0);
  ASSERT_EQ(cald(f, "convert " + model + flags + " --output part").code, 0);
  fs::remove_all(f / "part/checkpoint");  // as if killed before the first
  const Result r = cald(f, "convert --recipe part/recipe.json --resume");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(content_of(f / "part/metrics.jsonl"), content_of(f / "whole/metrics.jsonl"));
  EXPECT_TRUE(content_of(f / "part/model/model.safetensors") == content_of(f / "whole/model/model.safetensors"));
}

TEST(Program, ANonFiniteLossStopsTheRunAndNamesTheOp) {
  TempFolder f;
  make_inputs(f);
  const Result r =
      cald(f, "finetune '" + kGolden + "models/bert_h36' --train good.tsv --output run --steps 9 --max-length 20" +
                  " --learning-rate 1e30 --warmup 0 --checkpoint-every 1 --threads 1");
  EXPECT_EQ(r.code, 1);
  EXPECT_CONTAINS(r.err, "first op");
  EXPECT_CONTAINS(r.err, "checkpoint");
  EXPECT_TRUE(fs::exists(f / "run/checkpoint/state.json"));
}

TEST(Program, AFullDiskIsOneLineAndLeavesNoHalfFile) {
  TempFolder f;
  make_inputs(f);
  // A limit on file sizes fails writes the way a full disk does.
  const Result r = cald(
      f,
      "finetune '" + kGolden + "models/bert_h36' --train good.tsv --output run --steps 2 --max-length 20 --threads 1",
      "trap '' XFSZ; ulimit -f 20;");
  EXPECT_EQ(r.code, 1);
  EXPECT_CONTAINS(r.err, "run/");
  for (const auto& e : fs::recursive_directory_iterator(f / "run"))
    EXPECT_EQ(e.path().string().find(".tmp"), std::string::npos) << e.path();
}

TEST(Program, CtrlCWritesACheckpointAndExitsWith130) {
  TempFolder f;
  make_inputs(f);
  const std::string train = "'" + std::string(CALD_BINARY_DIR) + "/cald' finetune '" + kGolden +
                            "models/bert_h36' --train good.tsv --output run --steps 1000000 --threads 1";
  const Result r = cald(f, "inspect '" + kGolden + "models/bert_h36'",
                        train + " & pid=$!; while [ ! -s run/metrics.jsonl ]; do sleep 0.05; done; kill -INT $pid; " +
                            "wait $pid; echo $? >code.txt;");
  EXPECT_EQ(content_of(f / "code.txt"), "130\n") << r.err;
  EXPECT_CONTAINS(r.err, "--resume");
  EXPECT_TRUE(fs::exists(f / "run/checkpoint/state.json"));
}

/// Also what is no longer given, and what follows from another default.
TEST(Program, ResumeWantsTheSettingsThatTheRunWasBegunWith) {
  TempFolder f;
  make_inputs(f);
  const std::string run = "finetune '" + kGolden + "models/bert_h36' --train good.tsv --steps 4 --output run ";
  ASSERT_EQ(cald(f, run + "--dropout 0.3 --dev good.tsv").code, 0);
  expect_one_line_error(cald(f, run + "--dev good.tsv --resume"), 2,
                        "the run was begun with dropout = 0.3, now it is not given", "dropout");
  expect_one_line_error(cald(f, run + "--dropout 0.3 --resume"), 2, "the run was begun with dev = \"good.tsv\"", "dev");
  EXPECT_EQ(cald(f, run + "--dropout 0.3 --dev good.tsv --threads 1 --resume").code, 0);
}

/// What a budget chose depends on the number of threads; a run that goes on keeps it.
TEST(Program, ResumeKeepsWhatTheBudgetChose) {
  TempFolder f;
  make_inputs(f);
  const std::string run = "finetune '" + kGolden + "models/bert_h36' --train good.tsv --steps 4 --output run " +
                          "--memory-budget 100MiB --resume ";
  ASSERT_EQ(cald(f, run).code, 0);
  auto recipe = nlohmann::json::parse(content_of(f / "run/recipe.json"));
  EXPECT_EQ(recipe.at("recompute"), 0);
  recipe["recompute"] = 1;
  f.put("run/recipe.json", recipe.dump());
  const Result r = cald(f, run);
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_CONTAINS(r.err, "1 layers computed again");
}

/// Layers that are converted one after another keep what the first ones have learnt, and their own k.
TEST(Program, ConvertsLayersInStages) {
  TempFolder f;
  make_inputs(f);
  const auto convert = [&](const std::string& arguments) {
    return cald(f, "convert " + arguments + " --mixer-share layerwise --steps 0");
  };
  ASSERT_EQ(convert("'" + kGolden + "models/bert_h36' --layers 1 --mixer-k 4 --output one").code, 0);
  const Result same = convert("one/model --layers 0 --mixer-k 4 --output two");
  expect_one_line_error(same, 1, "'bert.encoder.layer.1.attention.self.E' has no place in the model", "the same E");
  ASSERT_EQ(convert("one/model --layers 0 --mixer-k 5 --output two").code, 0);
  const Result r = cald(f, "inspect two/model --tensors");
  EXPECT_CONTAINS(r.out, "bert.encoder.layer.0.attention.self.E");
  EXPECT_CONTAINS(r.out, "bert.encoder.layer.1.attention.self.E");
}

TEST(Program, ConvertsEvaluatesPredictsAndReports) {
  TempFolder f;
  make_inputs(f);
  const std::string model = "'" + kGolden + "models/bert_h36'";
  Result r = cald(f, "convert " + model + " --mode unguided --mixer linformer --mixer-k 4 --steps 0 --output student");
  ASSERT_EQ(r.code, 0) << r.err;
  r = cald(f, "convert " + model +
                  " --mode trajectory --student student/model --train good.tsv --dev good.tsv --steps 3 --max-length "
                  "20 --output run");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(fs::exists(f / "run/report.html"));
  r = cald(f, "evaluate run/model good.tsv --json e.json");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_CONTAINS(r.out, "of 2 examples");
  EXPECT_CONTAINS(content_of(f / "e.json"), "predictions");
  r = cald(f, "predict run/model 'a good film'");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_CONTAINS(r.out, "LABEL_0=");
  const std::string alone = cald(f, "predict run/model 'a good film' --pair 'not bad'").out;
  EXPECT_NE(alone, r.out);
  f.put("pairs.tsv", "a good film\tnot bad\n not bad \t a good film\r\n");  // white space around a text is none of it
  r = cald(f, "predict run/model --pairs --file pairs.tsv");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(r.out, alone + cald(f, "predict run/model 'not bad' --pair 'a good film'").out);
  r = cald(f, "inspect run/model");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_CONTAINS(r.out, "linformer");
  r = cald(f, "plan " + model + " --mode unguided --mixer-k 4 --train good.tsv --max-length 20 --memory-budget 4MiB");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_CONTAINS(r.out, "largest batch");
}

}  // namespace
}  // namespace cald
