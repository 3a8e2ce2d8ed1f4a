// What launches say that they cost, against counts by hand.
#include <gtest/gtest.h>

#include "engine/context.h"
#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/gemm.h"
#include "kernels/low_rank.h"
#include "kernels/optimizer.h"

namespace cald {
namespace {

TensorRef operand(const Shape& shape, DType dtype = DType::f32) {
  return {nullptr, dtype, shape, contiguous_strides(shape), true};
}

TEST(Cost, GemmCountsTwoForEachMultiplyAddInEveryLayout) {
  const std::int64_t m = 5, n = 7, k = 3;
  for (const bool ta : {false, true})
    for (const bool tb : {false, true})
      for (const bool add : {false, true}) {
        const TensorRef a = operand(ta ? Shape{k, m} : Shape{m, k}), b = operand(tb ? Shape{n, k} : Shape{k, n});
        const Cost c = cost_of(Gemm{a, b, operand({n}), {operand({m, n}), add}, ta, tb});
        EXPECT_EQ(c.flop, 2.0 * m * n * k);
        EXPECT_EQ(c.bytes, 4.0 * (m * k + k * n + n + (add ? 2 : 1) * m * n));
      }
  const Cost batched =
      cost_of(Gemm{operand({4, k, m}), operand({4, k, n}), {}, {operand({4, m, n}), false}, true, false, true});
  EXPECT_EQ(batched.flop, 4 * 2.0 * m * n * k);
  const Cost rows = cost_of(Gemm{operand({2, 3, k}), operand({n, k}), {}, {operand({2, 3, n}), false}, false, true});
  EXPECT_EQ(rows.flop, 2.0 * 6 * n * k) << "leading dimensions are rows";
}

TEST(Cost, AttentionCountsThePairsThatSeeEachOther) {
  const std::int64_t batch = 2, features = 12;
  for (const auto& [queries, keys] : {std::pair{5, 5}, std::pair{3, 7}, std::pair{7, 3}})
    for (const bool causal : {false, true}) {
      std::int64_t pairs = 0;
      for (int i = 0; i < queries; ++i)
        for (int j = 0; j < keys; ++j) pairs += !causal || j <= i + keys - queries;
      const double product = 2.0 * static_cast<double>(batch * pairs * features);
      const TensorRef q = operand({batch, queries, features}), k = operand({batch, keys, features});
      AttentionForward f{.q = q,
                         .k = k,
                         .v = k,
                         .mask = {},
                         .samples = {},
                         .y = q,
                         .lse = {},
                         .heads = 3,
                         .scale = 1,
                         .causal = causal,
                         .dropout = {}};
      EXPECT_EQ(cost_of(f).flop, 2 * product);
      AttentionBackward b{.q = q,
                          .k = k,
                          .v = k,
                          .mask = {},
                          .samples = {},
                          .y = q,
                          .lse = {},
                          .dy = q,
                          .dq = {q, false},
                          .dk = {k, false},
                          .dv = {k, false},
                          .heads = 3,
                          .scale = 1,
                          .causal = causal,
                          .dropout = {}};
      EXPECT_EQ(cost_of(b).flop, 5 * product);
      b.dq = b.dk = {};
      EXPECT_EQ(cost_of(b).flop, 2 * product) << "the scores again, and dv";
    }
}

TEST(Cost, LowRankReadsEachOperandOnce) {
  const TensorRef x = operand({2, 9, 6}), e = operand({12, 4}), y = operand({2, 4, 6});
  const TensorRef rank = operand({2, 9}, DType::i32), lengths = operand({2}, DType::i32);
  const Cost c = cost_of(LowRankForward{x, e, rank, lengths, y});
  EXPECT_EQ(c.flop, 2.0 * 2 * 9 * 6 * 4);
  EXPECT_EQ(c.bytes, 4.0 * (2 * 9 * 6 + 12 * 4 + 2 * 4 * 6 + 2 * 9 + 2));
  EXPECT_EQ(cost_of(LowRankBackward{x, e, rank, lengths, y, {x, false}, {e, true}}).flop, 2 * c.flop);
}

TEST(Cost, BytesOfAbsentNarrowAndUpdatedOperands) {
  EXPECT_EQ(cost_of(Copy{operand({3, 5}), operand({3, 5}, DType::bf16)}).bytes, 15.0 * (4 + 2));
  EXPECT_EQ(cost_of(Add{operand({8}), operand({8}), operand({8}), 2.0f, 0.0f}).bytes, 64.0) << "b is not read";
  const TensorRef ids = operand({2, 3}, DType::i32), rows = operand({2, 3, 4}), table = operand({100, 4});
  EXPECT_EQ(cost_of(EmbeddingForward{ids, {}, {}, table, {}, {}, rows}).bytes, 24.0 + 2 * 96);
  EXPECT_EQ(cost_of(EmbeddingBackward{ids, rows, {table, false}}).bytes, 24.0 + 96 + 1600);
  EXPECT_EQ(cost_of(EmbeddingBackward{ids, rows, {table, true}}).bytes, 24.0 + 96 + 2 * 96);
  const std::vector<AdamWSlot> slots(2, {table, table, table, table, 0, 0});
  EXPECT_EQ(cost_of(AdamW{&slots, 1, 0.9, 0.999, 1e-8f, 0, {}}).bytes, 2 * 7 * 1600.0);
}

}  // namespace
}  // namespace cald
