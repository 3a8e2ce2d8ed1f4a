// The memory planner on random traces, on traces like a transformer's step, and its report.
#include "engine/planner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <string>

#include "engine/base/rng.h"

namespace cald {
namespace {

struct Lifetime {
  std::size_t first, last, offset, bytes;
};

std::vector<Lifetime> lifetimes(const MemoryPlan& plan) {
  std::vector<Lifetime> all;
  for (std::size_t t = 0; t < plan.events.size(); ++t) {
    const MemoryEvent& e = plan.events[t];
    if (e.take)
      all.push_back({t, plan.events.size(), plan.offsets[all.size()], e.bytes});
    else
      all[static_cast<std::size_t>(e.id)].last = t;
  }
  return all;
}

/// What any plan must satisfy, checked without the planner's own code.
void check_plan(const MemoryPlan& plan) {
  const std::vector<Lifetime> blocks = lifetimes(plan);
  ASSERT_EQ(blocks.size(), plan.offsets.size());
  std::size_t top = 0;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const Lifetime& a = blocks[i];
    EXPECT_EQ(a.offset % Allocator::kAlignment, 0u);
    top = std::max(top, a.offset + planned_size(a.bytes));
    for (std::size_t j = 0; j < i; ++j) {
      const Lifetime& b = blocks[j];
      const bool together = a.first < b.last && b.first < a.last;
      const bool overlap = a.offset < b.offset + planned_size(b.bytes) && b.offset < a.offset + planned_size(a.bytes);
      ASSERT_FALSE(together && overlap && a.bytes > 0 && b.bytes > 0) << "blocks " << j << " and " << i;
    }
  }
  EXPECT_EQ(plan.bytes, top);
  std::size_t bound = 0;
  for (std::size_t t = 0; t < plan.events.size(); ++t) {
    std::size_t live = 0;
    for (const Lifetime& b : blocks)
      if (b.first <= t && t < b.last) live += planned_size(b.bytes);
    bound = std::max(bound, live);
  }
  EXPECT_EQ(plan.lower_bound, bound);
  EXPECT_GE(plan.bytes, plan.lower_bound);
}

TEST(Planner, RandomTraces) {
  RandomStream random(1, 1);
  double excess = 0;
  for (int trace = 0; trace < 40; ++trace) {
    RecordingAllocator recording;
    std::vector<std::shared_ptr<Storage>> live;
    for (int step = 0; step < 120; ++step) {
      if (!live.empty() && random.below(5) < 2) {
        live.erase(live.begin() + random.below(static_cast<std::uint32_t>(live.size())));
        continue;
      }
      const std::size_t bytes = random.below(10) == 0 ? 0 : std::size_t{1} << random.below(16);
      live.push_back(recording.allocate(bytes + random.below(60), static_cast<MemClass>(random.below(6)), "op"));
    }
    const MemoryPlan plan = plan_memory(recording.events());
    check_plan(plan);
    excess += static_cast<double>(plan.bytes) / static_cast<double>(plan.lower_bound) - 1;
  }
  EXPECT_LT(excess / 40, 0.02) << "several orders of placement are tried for this";
}

TEST(Planner, NothingToPlan) {
  const MemoryPlan plan = plan_memory({});
  EXPECT_EQ(plan.bytes, 0u);
  EXPECT_EQ(plan.lower_bound, 0u);
  EXPECT_STREQ(plan.peak_op(), "");
}

/// A post-norm encoder's training step: activations kept for the backward, temporaries of ops, gradients that come and
/// go, in units of one (batch x length) row.
std::vector<MemoryEvent> transformer_trace(std::size_t rows, std::size_t d, std::size_t ffn, int layers) {
  RecordingAllocator r;
  using Block = std::shared_ptr<Storage>;
  const auto take = [&](std::size_t columns, const char* op, MemClass c = MemClass::activations) {
    return r.allocate(rows * columns * 4, c, op);
  };
  std::vector<Block> kept;
  Block x = take(d, "embedding");
  for (int l = 0; l < layers; ++l) {
    Block q = take(d, "linear"), k = take(d, "linear"), v = take(d, "linear");
    Block y = take(d, "attention"), lse = take(12, "attention"), out = take(d, "linear");
    Block sum = take(d, "layer_norm"), normed = take(d, "layer_norm"), stats = take(2, "layer_norm");
    out.reset();
    Block hidden = take(ffn, "linear"), active = take(ffn, "activation"), back = take(d, "linear");
    Block sum2 = take(d, "layer_norm"), next = take(d, "layer_norm"), stats2 = take(2, "layer_norm");
    back.reset();
    for (const Block& b : {x, q, k, v, y, lse, sum, normed, stats, hidden, active, sum2, stats2}) kept.push_back(b);
    x = next;
  }
  Block dy = take(d, "loss");
  x.reset();
  for (int l = 0; l < layers; ++l) {
    Block scratch = take(4, "layer_norm", MemClass::workspace);
    Block dsum = take(d, "layer_norm");
    scratch.reset();
    dy.reset();
    Block dactive = take(ffn, "linear"), dnormed = dsum;
    Block dhidden = take(ffn, "activation");
    dactive.reset();
    Block dff = take(d, "linear");
    dhidden.reset();
    Block dsum2 = take(d, "layer_norm");
    dff.reset(), dnormed.reset(), dsum.reset();
    Block dyo = take(d, "linear"), dq = take(d, "attention"), dk = take(d, "attention"), dv = take(d, "attention");
    dyo.reset();
    dy = take(d, "linear");
    dq.reset(), dk.reset(), dv.reset(), dsum2.reset();
    kept.resize(kept.size() - 13);
  }
  return r.events();
}

TEST(Planner, WithinFivePercentOnATransformersStep) {
  for (int layers : {1, 2, 6, 12})
    for (std::size_t rows : {std::size_t{33}, std::size_t{1024}}) {
      const MemoryPlan plan = plan_memory(transformer_trace(rows, 384, 1536, layers));
      check_plan(plan);
      EXPECT_LE(static_cast<double>(plan.bytes), 1.05 * static_cast<double>(plan.lower_bound)) << layers << " layers";
    }
}

TEST(Planner, ReportsThePeakByClassAndOp) {
  RecordingAllocator r;
  auto weights = r.allocate(640, MemClass::weights, "load");
  auto a = r.allocate(6400, MemClass::activations, "ffn");
  auto w = r.allocate(64, MemClass::workspace, "gemm");
  a.reset();
  auto b = r.allocate(1280, MemClass::activations, "small");
  const MemoryPlan plan = plan_memory(r.events());
  EXPECT_STREQ(plan.peak_op(), "gemm");
  EXPECT_EQ(plan.lower_bound, 640u + 6400 + 64);
  EXPECT_EQ(plan.peak_by_class[static_cast<std::size_t>(MemClass::activations)], 6400u);
  EXPECT_EQ(plan.peak_by_class[static_cast<std::size_t>(MemClass::weights)], 640u);
  EXPECT_EQ(plan.peak_by_class[static_cast<std::size_t>(MemClass::workspace)], 64u);
  EXPECT_EQ(plan.peak_by_class[static_cast<std::size_t>(MemClass::optimizer)], 0u);
}

TEST(Planner, SizesAreRoundedToCacheLines) {
  EXPECT_EQ(planned_size(0), 0u);
  EXPECT_EQ(planned_size(1), 64u);
  EXPECT_EQ(planned_size(64), 64u);
  EXPECT_EQ(planned_size(65), 128u);
}

}  // namespace
}  // namespace cald
