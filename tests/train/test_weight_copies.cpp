// Copies of weights for products in bf16: they change what a step costs, not what it computes.
#include "kernels/gemm.h"
#include "tests/app/formula_model.h"
#include "tests/train/golden_run.h"
#include "train/option_names.h"

namespace cald {
namespace {

/// A model some of whose weights fill panels, and some do not.
std::string make_wide_model(const TempFolder& folder) {
  const fs::path narrow = kGolden + "models/bert_h36", shape = folder / "shape";
  auto config = nlohmann::json::parse(content_of((narrow / "config.json").string()));
  config["hidden_size"] = 72;
  config["intermediate_size"] = 50;
  fs::create_directory(shape);
  std::ofstream(shape / "config.json") << config;
  const std::string model = with_weights(shape, folder);
  fs::copy(narrow / "vocab.txt", model);
  return model;
}

RunOptions options_of(Mode mode, const TempFolder& folder) {
  RunOptions o;
  o.model = make_wide_model(folder);
  o.mode = mode;
  o.train = kGolden + "steps/train.tsv";
  if (mode == Mode::target) o.teacher = o.model;
  o.mixer_k = 8;
  o.steps = 5;
  o.batch_size = 4;
  o.warmup = {0, false};
  o.learning_rate = 1e-3;
  o.dtype = DTypeOption::bf16;
  o.max_length = 20;
  o.threads = 2;
  o.checkpoint_every = StepOrShare{2, false};
  resolve_preset(o);
  return o;
}

class WeightCopiesOfMode : public ::testing::TestWithParam<Mode> {
 protected:
  void SetUp() override {
    if (!cpu_has_bf16()) GTEST_SKIP() << "this processor has no bf16 instructions";
  }
  static void expect_same_bytes(const Ran& a, const Ran& b) {
    EXPECT_TRUE(a.metrics == b.metrics);
    EXPECT_TRUE(a.weights == b.weights);
  }
  TempFolder folder_;
};

TEST_P(WeightCopiesOfMode, ChangeNoByteOfARun) {
  RunOptions o = options_of(GetParam(), folder_);
  const Ran kept = run_with(o, folder_ / "kept");
  o.memory_budget = "1GiB";  // nothing has room until the trainer is asked to fit
  expect_same_bytes(run_with(o, folder_ / "none"), kept);
}

TEST_P(WeightCopiesOfMode, FollowALoad) {
  RunOptions o = options_of(GetParam(), folder_);
  const Ran whole = run_with(o, folder_ / "whole");
  o.output = folder_ / "parts";
  train_a_step(o);
  o.resume = true;
  expect_same_bytes(run_with(o, o.output), whole);
}

INSTANTIATE_TEST_SUITE_P(All, WeightCopiesOfMode, ::testing::Values(Mode::finetune, Mode::target, Mode::trajectory),
                         [](const auto& param) { return std::string(enum_name(param.param)); });

/// Beside a budget they are kept as far as there is room.
TEST(WeightCopies, TakeTheRestOfABudget) {
  if (!cpu_has_bf16()) GTEST_SKIP() << "this processor has no bf16 instructions";
  TempFolder folder;
  RunOptions o = options_of(Mode::trajectory, folder);
  Progress progress = quiet();
  const auto planned = [&](std::size_t budget) {
    o.memory_budget = budget ? std::to_string(budget) : "";
    HeapAllocator heap;
    Trainer trainer(o, heap, progress);
    EXPECT_TRUE(budget == 0 || trainer.fit(budget));
    EXPECT_EQ(trainer.options().recompute, 0);
    trainer.plan();
    return trainer.cost();
  };
  const MemoryCost all = planned(0), roomy = planned(all.total() + 4096), tight = planned(all.total() - 4096);
  EXPECT_EQ(roomy.persistent, all.persistent);
  // Student and teacher have two layers, in each four weights that are packed twice, with 72 rows and columns of which
  // 96 and 128 are held, and two of 50 by 72 that are copied once.
  const std::size_t copies = 2 * 2 * (4 * 2 * 96 * 128 + 2 * 50 * 72) * size_of(DType::bf16);
  EXPECT_EQ(all.persistent - tight.persistent, copies);
  EXPECT_LE(tight.total(), all.total() - 4096);

  // A resumed run, whose choice is known, takes the same room.
  for (const auto& [budget, wanted] : {std::pair{all.total() + 4096, &roomy}, std::pair{all.total() - 4096, &tight}}) {
    o.memory_budget = std::to_string(budget);
    HeapAllocator heap;
    Trainer trainer(o, heap, progress);
    trainer.take_room(budget);
    trainer.plan();
    EXPECT_EQ(trainer.cost().persistent, wanted->persistent);
  }
}

}  // namespace
}  // namespace cald
