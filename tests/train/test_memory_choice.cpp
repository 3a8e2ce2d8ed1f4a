// Memory as a choice: recomputation and micro-batches change what a run needs, not what it computes.
#include "train/memory_choice.h"

#include <cmath>

#include "kernels/gemm.h"
#include "tests/train/golden_run.h"
#include "train/cost.h"
#include "train/option_names.h"

namespace cald {
namespace {

/// A golden run of a few steps with dropout on.
RunOptions options_of(const char* golden) {
  RunOptions o = golden_options(read_golden(golden), "unset");
  o.steps = 4;
  o.warmup = {0, false};
  o.hybrid_stop.reset();
  o.dropout = 0.1;
  return o;
}

class MemoryChoiceOfMode : public ::testing::TestWithParam<const char*> {};

void check_recomputation(RunOptions o) {
  TempFolder folder;
  const Ran plain = run_with(o, folder / "plain");
  for (const std::int64_t layers : {1, 2}) {
    o.recompute = layers;
    const Ran again = run_with(o, folder / ("again-" + std::to_string(layers)));
    EXPECT_TRUE(again.metrics == plain.metrics) << layers << " layers";
    EXPECT_TRUE(again.weights == plain.weights) << layers << " layers";
    if (layers == 2) {
      EXPECT_LT(again.arena, plain.arena);
    }
  }
}

TEST_P(MemoryChoiceOfMode, RecomputationGivesTheSameBytesInLessMemory) { check_recomputation(options_of(GetParam())); }

TEST_P(MemoryChoiceOfMode, RecomputationGivesTheSameBytesInBf16) {
  if (!cpu_has_bf16()) GTEST_SKIP() << "this processor has no bf16 instructions";
  RunOptions o = options_of(GetParam());
  o.dtype = DTypeOption::bf16;
  check_recomputation(o);
}

/// Losses of the first step: later ones follow from updates, which rounding moves. The same dropout is drawn, else the
/// losses would differ in their first digits.
TEST_P(MemoryChoiceOfMode, PartsOfABatchGiveTheLossesOfTheWhole) {
  TempFolder folder;
  RunOptions o = options_of(GetParam());
  const Ran plain = run_with(o, folder / "plain");
  for (const std::int64_t parts : {2, 3, 4}) {
    o.micro_batches = parts;
    const Ran cut = run_with(o, folder / ("cut-" + std::to_string(parts)));
    for (const char* term : {"loss", "ce", "kd", "ld", "teacher_ce"}) {
      if (!plain.lines[0].contains(term)) continue;
      const double want = plain.lines[0].at(term), got = cut.lines[0].at(term);
      EXPECT_NEAR(got, want, 2e-6 * std::abs(want)) << term << ", " << parts << " parts";
      EXPECT_NEAR(cut.lines[3].at(term).get<double>(), plain.lines[3].at(term).get<double>(),
                  2e-4 * std::abs(plain.lines[3].at(term).get<double>()))
          << term << " of the last step, " << parts << " parts";
    }
  }
}

/// Clipping needs all gradients at once; a bound that is never reached changes no bit.
TEST_P(MemoryChoiceOfMode, UpdatesInTheMidstOfTheBackwardGiveTheSameBytes) {
  TempFolder folder;
  RunOptions o = options_of(GetParam());
  o.clip = 0;
  const Ran early = run_with(o, folder / "early");
  o.clip = 1e30;
  const Ran late = run_with(o, folder / "late");
  EXPECT_TRUE(early.metrics == late.metrics);
  EXPECT_TRUE(early.weights == late.weights);
}

INSTANTIATE_TEST_SUITE_P(All, MemoryChoiceOfMode,
                         ::testing::Values("bert_finetune", "bert_target_paper", "bert_target_key_value",
                                           "bert_trajectory_1", "roberta_target"),
                         [](const auto& param) { return std::string(param.param); });

TEST(MemoryChoice, FitsIntoTheBudgetAndTheRecipeSaysHow) {
  TempFolder folder;
  RunOptions o = options_of("bert_target");
  Progress progress = quiet();
  std::size_t everything = 0, least = 0;
  {
    HeapAllocator heap;
    Trainer trainer(o, heap, progress);
    const auto trade = trainer.trade();
    everything = trade.front().bytes;
    least = trade.front().bytes;
    for (const MemoryChoice& c : trade) least = std::min(least, c.bytes);
  }
  ASSERT_LT(least, everything);
  const std::size_t budget = (3 * least + everything) / 4;  // a teacher in its files does not save that much
  o.memory_budget = std::to_string(budget);
  o.output = folder / "run";
  {
    HeapAllocator heap;
    Trainer trainer(o, heap, progress);
    EXPECT_FALSE(trainer.fit(least - 1));
    ASSERT_TRUE(trainer.fit(budget));
    EXPECT_GT(trainer.options().recompute + trainer.options().micro_batches, 1);
    trainer.plan();
    EXPECT_LE(trainer.cost().total(), budget);
    const std::atomic<bool> stop{false};
    trainer.run(stop);
    EXPECT_LE(heap.live_bytes(), budget);
    const auto recipe = nlohmann::json::parse(content_of(folder / "run/recipe.json"));
    EXPECT_EQ(recipe.at("recompute"), trainer.options().recompute);
    EXPECT_EQ(recipe.at("micro-batches"), trainer.options().micro_batches);
  }
}

/// A last batch that is smaller by one has a part whose plan as the first of a step is known, and as a later one is
/// not. Sizes at which setting and adding a product take other scratch memory, on some processors.
TEST(MemoryChoice, PartsOfASmallerLastBatchHavePlansOfTheirOwn) {
  TempFolder folder;
  HeapAllocator memory;
  Encoder model(EncoderConfig::from_json({{"model_type", "bert"},
                                          {"vocab_size", 96},
                                          {"hidden_size", 384},
                                          {"num_hidden_layers", 1},
                                          {"num_attention_heads", 12},
                                          {"intermediate_size", 1536},
                                          {"max_position_embeddings", 64},
                                          {"type_vocab_size", 2}},
                                         "test"));
  model.parameters().allocate(memory, MemClass::weights);
  for (Parameter& p : model.parameters().all()) {
    RandomStream random(5, stream_of(p.name));
    for (std::int64_t i = 0; i < p.shape.numel(); ++i) p.value.data<float>()[i] = 0.02f * random.normal();
  }
  save_model(model, folder / "model", kGolden + "models/bert_h36", std::nullopt);
  std::string words, text = "sentence\tlabel\n";
  for (int i = 0; i < 30; ++i) words += "film plot ";
  for (int i = 0; i < 63; ++i) text += words + "\t" + std::to_string(i % 2) + "\n";
  folder.put("train.tsv", text);
  RunOptions o;
  o.model = folder / "model", o.train = folder / "train.tsv";
  o.max_length = 62;
  o.threads = 1;
  o.steps = 2;
  o.micro_batches = 2;
  resolve_preset(o);
  const Ran ran = run_with(o, folder / "run");
  EXPECT_EQ(ran.lines.size(), 2u);
}

/// The trade knows that a teacher which learns computes its layers again too.
TEST(MemoryChoice, CountsTheRecomputationOfATeacherThatLearns) {
  RunOptions o = options_of("bert_trajectory_1");
  Progress progress = quiet();
  HeapAllocator heap;
  std::size_t expected = 0;
  {
    Trainer trainer(o, heap, progress);
    for (const MemoryChoice& c : trainer.trade())
      if (c.micro_batches == 1 && c.recompute == 2) expected = c.bytes;
  }
  o.recompute = 2;
  Trainer trainer(o, heap, progress);
  trainer.plan();
  EXPECT_EQ(trainer.cost().total(), expected);
}

/// Frozen teachers in their files: the same bytes, for the memory of the largest part alone.
class MappedTeacher : public ::testing::TestWithParam<const char*> {};

TEST_P(MappedTeacher, ChangesNoByte) {
  TempFolder folder;
  RunOptions o = options_of(GetParam());
  const Ran copied = run_with(o, folder / "copied");
  o.map_teacher = true;
  const Ran mapped = run_with(o, folder / "mapped");
  EXPECT_TRUE(mapped.metrics == copied.metrics);
  EXPECT_TRUE(mapped.weights == copied.weights);
  EXPECT_EQ(mapped.arena, copied.arena);
}

/// In memory it holds its matrices rounded, in its files it does not.
TEST_P(MappedTeacher, ChangesNoByteInBf16) {
  if (!cpu_has_bf16()) GTEST_SKIP() << "this processor has no bf16 instructions";
  TempFolder folder;
  RunOptions o = options_of(GetParam());
  o.dtype = DTypeOption::bf16;
  const Ran copied = run_with(o, folder / "copied");
  o.map_teacher = true;
  const Ran mapped = run_with(o, folder / "mapped");
  EXPECT_TRUE(mapped.metrics == copied.metrics);
  EXPECT_TRUE(mapped.weights == copied.weights);
}

/// The teacher's own dtype: its memory and its states follow it, the student's pass does not.
TEST_P(MappedTeacher, MayComputeInAnotherDtypeThanTheStudent) {
  if (!cpu_has_bf16()) GTEST_SKIP() << "this processor has no bf16 instructions";
  TempFolder folder;
  struct Result {
    nlohmann::json first;
    std::size_t teacher;
  };
  const auto result_of = [&](DTypeOption student, DTypeOption teacher) {
    RunOptions o = options_of(GetParam());
    o.dtype = student;
    o.teacher_dtype = teacher;
    Progress progress = quiet();
    HeapAllocator heap;
    Trainer trainer(o, heap, progress);
    const std::string name = enum_name(student) + enum_name(teacher);
    return Result{run_with(o, folder / name).lines[0], heap.live_bytes_of(MemClass::teacher)};
  };
  constexpr DTypeOption f32 = DTypeOption::f32, bf16 = DTypeOption::bf16;
  const Result all_f32 = result_of(f32, f32), teacher_bf16 = result_of(f32, bf16);
  const Result all_bf16 = result_of(bf16, bf16), teacher_f32 = result_of(bf16, f32);
  EXPECT_EQ(teacher_bf16.first.at("ce"), all_f32.first.at("ce"));
  EXPECT_EQ(teacher_f32.first.at("ce"), all_bf16.first.at("ce"));
  EXPECT_NE(teacher_bf16.first.at("ce"), all_bf16.first.at("ce"));
  EXPECT_NE(teacher_bf16.first.at("ld"), all_f32.first.at("ld"));
  EXPECT_NE(teacher_f32.first.at("ld"), all_bf16.first.at("ld"));
  // Rounding to 8 bits moves a mean of squares by some hundredths at most.
  EXPECT_NEAR(teacher_bf16.first.at("ld").get<double>() / all_f32.first.at("ld").get<double>(), 1, 0.02);
  EXPECT_EQ(teacher_bf16.teacher, all_bf16.teacher);
  EXPECT_EQ(teacher_f32.teacher, all_f32.teacher);
  EXPECT_LT(all_bf16.teacher, all_f32.teacher);
}

TEST_P(MappedTeacher, IsCountedByItsLargestPart) {
  RunOptions o = options_of(GetParam());
  Progress progress = quiet();
  const auto cost_of = [&](bool map) {
    o.map_teacher = map;
    HeapAllocator heap;
    Trainer trainer(o, heap, progress);
    trainer.plan();
    EXPECT_EQ(trainer.bytes_for(4), trainer.cost().total()) << "what the search expects is what the plan says";
    return trainer.cost();
  };
  const auto teacher = static_cast<int>(MemClass::teacher);
  const MemoryCost copied = cost_of(false), mapped = cost_of(true);
  EXPECT_LT(2 * mapped.by_class[teacher], copied.by_class[teacher]);
  EXPECT_GT(mapped.by_class[teacher], 0u);
  EXPECT_EQ(copied.total() - mapped.total(), copied.by_class[teacher] - mapped.by_class[teacher]);
  if (!cpu_has_bf16()) return;
  o.teacher_dtype = DTypeOption::bf16;
  const MemoryCost rounded = cost_of(false);
  EXPECT_LT(mapped.by_class[teacher], rounded.by_class[teacher]);
  EXPECT_LT(rounded.by_class[teacher], copied.by_class[teacher]);
}

INSTANTIATE_TEST_SUITE_P(All, MappedTeacher, ::testing::Values("bert_target", "bert_waypoint", "roberta_target"),
                         [](const auto& param) { return std::string(param.param); });

/// Half the optimizer's memory, and losses that stay as near as rounding moments lets them.
TEST(MemoryChoice, MomentsInBf16) {
  RunOptions o = options_of("bert_target");
  Progress progress = quiet();
  std::size_t optimizer[2];
  std::vector<nlohmann::json> lines[2];
  TempFolder folder;
  for (const bool bf16 : {false, true}) {
    o.moments = bf16 ? DTypeOption::bf16 : DTypeOption::f32;
    o.output = folder / (bf16 ? "bf16" : "f32");
    HeapAllocator heap;
    Trainer trainer(o, heap, progress);
    trainer.plan();
    optimizer[bf16] = trainer.cost().by_class[static_cast<int>(MemClass::optimizer)];
    train(o);
    lines[bf16] = read_lines(o.output + "/metrics.jsonl");
  }
  EXPECT_LT(optimizer[true], optimizer[false] * 6 / 10);  // the index of moved rows stays
  ASSERT_EQ(lines[true].size(), lines[false].size());
  EXPECT_EQ(lines[true][0].at("loss"), lines[false][0].at("loss")) << "before the first update";
  double farthest = 0;
  for (std::size_t step = 1; step < lines[true].size(); ++step) {
    const double with = lines[true][step].at("loss"), without = lines[false][step].at("loss");
    farthest = std::max(farthest, std::abs(with / without - 1));
  }
  EXPECT_GT(farthest, 0.0);
  // An update is off by a 128th at most where a moment is, at random; the loss moves by less than it falls in all.
  EXPECT_LT(farthest, 0.02);
}

TEST(MemoryChoice, MapsTheTeacherBeforeItComputesLayersAgain) {
  RunOptions o = options_of("bert_target");
  Progress progress = quiet();
  std::size_t everything = 0, mapped = 0;
  {
    HeapAllocator heap;
    Trainer trainer(o, heap, progress);
    for (const MemoryChoice& c : trainer.trade())
      if (c.recompute == 0 && c.micro_batches == 1) (c.map_teacher ? mapped : everything) = c.bytes;
  }
  ASSERT_LT(mapped, everything);
  for (const std::size_t budget : {everything, mapped}) {
    o.memory_budget = std::to_string(budget);
    HeapAllocator heap;
    Trainer trainer(o, heap, progress);
    ASSERT_TRUE(trainer.fit(budget));
    EXPECT_EQ(trainer.options().map_teacher, budget == mapped);
    EXPECT_EQ(trainer.options().recompute, 0);
    EXPECT_EQ(trainer.options().micro_batches, 1);
    trainer.plan();
    EXPECT_LE(trainer.cost().total(), budget);
  }
}

TEST(MemoryChoice, WhereNothingFitsItSaysWhatWould) {
  RunOptions o = options_of("bert_trajectory_1");
  o.dev = o.train;
  Progress progress = quiet();
  HeapAllocator heap;
  Trainer::LeastMemory least;
  {
    Trainer trainer(o, heap, progress);
    least = trainer.least_memory();
    EXPECT_EQ(trainer.options().eval_batch_size, o.eval_batch_size);
    EXPECT_FALSE(trainer.fit(least.choice.bytes - 1));
    EXPECT_TRUE(trainer.fit(least.choice.bytes));
  }
  EXPECT_EQ(least.further, "--eval-batch-size 1 --moments bf16");
  EXPECT_LT(least.further_bytes, least.choice.bytes);
  o.eval_batch_size = 1;
  o.moments = DTypeOption::bf16;
  Trainer trainer(o, heap, progress);
  EXPECT_FALSE(trainer.fit(least.further_bytes - 1));
  EXPECT_TRUE(trainer.fit(least.further_bytes));
}

/// 100 bytes a layer that is kept and 1000 an example; gradients of 500 where a batch is cut.
std::size_t bytes_of(std::int64_t recompute, std::int64_t parts) {
  const std::int64_t rows = (8 + parts - 1) / parts;
  return static_cast<std::size_t>(rows * (1000 + 100 * (6 - std::min<std::int64_t>(recompute, 6))) +
                                  (parts > 1 ? 500 : 0));
}

TEST(MemoryChoice, TakesTheFastestThatFits) {
  const MemoryBounds bounds{.layers = 6, .batch = 8, .tokens = 1024};
  const auto plain = fit_memory(bounds, bytes_of, 12800);
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->recompute, 0);
  EXPECT_EQ(plain->micro_batches, 1);
  EXPECT_EQ(plain->time, 1.0);
  const auto cut = fit_memory(bounds, bytes_of, 8000);  // two parts keep everything in 6900
  ASSERT_TRUE(cut);
  EXPECT_EQ(cut->recompute, 0);
  EXPECT_EQ(cut->micro_batches, 2);
  EXPECT_EQ(cut->bytes, 6900u);
  const auto least = fit_memory(bounds, bytes_of, 1500);
  ASSERT_TRUE(least);
  EXPECT_EQ(least->recompute, 6);
  EXPECT_EQ(least->micro_batches, 8);
  EXPECT_FALSE(fit_memory(bounds, bytes_of, 1499));
  EXPECT_EQ(memory_trade(bounds, bytes_of).size(), 12u);

  // Parts of few tokens cost more than layers computed again.
  const auto again = fit_memory({.layers = 6, .batch = 8, .tokens = 24}, bytes_of, 8000);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->recompute, 6);
  EXPECT_EQ(again->micro_batches, 1);
}

}  // namespace
}  // namespace cald
