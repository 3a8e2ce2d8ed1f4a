// Run directories that are gone on with, or begun anew.
#include <algorithm>

#include "tests/app/edit_model.h"

namespace cald {
namespace {

const std::string kRun = "finetune '" + kGolden + "models/bert_h36' --max-length 20 --threads 1 --output run ";

void put_data(const TempFolder& f, const std::string& file, const char* last) {
  f.put(file, std::string("sentence\tlabel\na good film\t1\nthe plot is bad\t0\n") + last);
}

TEST(RunDirectories, DataThatHasChangedIsNotGoneOnWith) {
  TempFolder f;
  const std::string run = kRun + "--train train.tsv --dev dev.tsv --steps 2 ";
  put_data(f, "train.tsv", "the film\t1\n");
  put_data(f, "dev.tsv", "the film\t1\n");
  ASSERT_EQ(cald(f, run).code, 0);
  const std::string metrics = content_of(f / "run/metrics.jsonl");
  const auto refused = [&](const char* message) {
    const Result r = cald(f, run + "--resume");
    EXPECT_EQ(r.code, 2) << r.err;
    EXPECT_CONTAINS(r.err, message);
    EXPECT_EQ(content_of(f / "run/metrics.jsonl"), metrics);
  };
  put_data(f, "train.tsv", "");
  refused("--resume: train.tsv has 2 examples, but the run was begun with 3");
  put_data(f, "train.tsv", "the plot\t1\n");
  refused("--resume: train.tsv does not hold the examples that the run was begun with");
  put_data(f, "train.tsv", "the film\t0\n");
  refused("--resume: train.tsv does not hold");
  put_data(f, "train.tsv", "the film\t1\n");
  put_data(f, "dev.tsv", "");
  refused("--resume: dev.tsv has 2 examples");
  put_data(f, "dev.tsv", "the film\t1\n");
  EXPECT_EQ(cald(f, run + "--resume").code, 0);
}

TEST(RunDirectories, AFailureBeforeTheFirstCheckpointPromisesNoneAndBlocksNothing) {
  TempFolder f;
  put_data(f, "train.tsv", "");
  const std::string run = kRun + "--train train.tsv --steps 4 --checkpoint-every 4 ";
  const Result failed = cald(f, run + "--learning-rate 1e30 --warmup 0");
  EXPECT_EQ(failed.code, 1);
  EXPECT_CONTAINS(failed.err, "not finite");
  EXPECT_EQ(failed.err.find("checkpoint"), std::string::npos) << failed.err;
  EXPECT_EQ(cald(f, run).code, 0);
  EXPECT_CONTAINS(content_of(f / "run/recipe.json"), "\"learning-rate\": 5e-05");
  EXPECT_EQ(cald(f, run).code, 2) << "now it holds a run";
}

TEST(RunDirectories, AConvertedModelIsNotWrittenOver) {
  TempFolder f;
  const std::string run =
      "convert '" + kGolden + "models/bert_h36' --mode unguided --mixer-k 4 --steps 0 --output run ";
  ASSERT_EQ(cald(f, run).code, 0);
  EXPECT_EQ(cald(f, run).code, 2);
}

TEST(RunDirectories, AWriteBeyondTheLimitOnFilesIsReportedAndCleanedUp) {
  TempFolder f;
  put_data(f, "train.tsv", "");
  const Result r = cald(f, kRun + "--train train.tsv --steps 2", "ulimit -f 20;");
  EXPECT_EQ(r.code, 1);
  EXPECT_CONTAINS(r.err, "File too large");
  for (const auto& e : fs::recursive_directory_iterator(f / "run"))
    EXPECT_EQ(e.path().string().find(".tmp"), std::string::npos) << e.path();
}

}  // namespace
}  // namespace cald
