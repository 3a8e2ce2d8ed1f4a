// The low-rank projection of the sequence axis: ranks, pads on either side, exactness, threads.
#include <gtest/gtest.h>

#include <cstring>

#include "ops/losses.h"
#include "ops/low_rank.h"
#include "tests/ops/harness.h"
#include "tests/ops/weighted_total.h"

namespace cald::test {
namespace {

/// Ranks and lengths of a batch; ranks count from 0 unless given.
struct Ranks {
  std::int64_t batch, tokens;
  std::vector<std::int32_t> rank, lengths;
};

/// Valid tokens [begin, end) of each sample.
Ranks runs(std::int64_t tokens, const std::vector<std::pair<std::int32_t, std::int32_t>>& ranges) {
  Ranks r{static_cast<std::int64_t>(ranges.size()), tokens, {}, {}};
  for (const auto& [begin, end] : ranges) {
    for (std::int32_t s = 0; s < tokens; ++s) r.rank.push_back(s >= begin && s < end ? s - begin : -1);
    r.lengths.push_back(end - begin);
  }
  return r;
}

template <class T>
Array<T> project(const Ranks& r, const Inputs<T>& in) {
  const auto &x = in[0], &e = in[1];
  Array<T> y({r.batch, e.dim(1), x.dim(2)});
  for (std::int64_t b = 0; b < r.batch; ++b) {
    const std::int32_t length = r.lengths[static_cast<std::size_t>(b)];
    for (std::int64_t s = 0; s < r.tokens; ++s) {
      const std::int32_t rank = r.rank[static_cast<std::size_t>(b * r.tokens + s)];
      if (rank < 0) continue;
      for (std::int64_t j = 0; j < e.dim(1); ++j)
        for (std::int64_t c = 0; c < x.dim(2); ++c) y(b, j, c) += e(rank, j) * x(b, s, c) / sqrt(T(double(length)));
    }
  }
  return y;
}

Tensor apply(OpRun& run, const Ranks& r, const std::vector<Tensor>& in) {
  return run.tape.apply(LowRankProjection{run.ints({r.batch, r.tokens}, r.rank), run.ints({r.batch}, r.lengths)}, in[0],
                        in[1]);
}

void check(const std::string& name, const Ranks& r, std::int64_t positions, std::int64_t slots, std::int64_t width) {
  const Case c{name, {{{r.batch, r.tokens, width}}, {{positions, slots}}}};
  // e is rounded too.
  for (const Case& each : {c, in_bf16(c, {0}, DType::bf16, 2)})
    check_op(
        each, [&]<class T>(const Inputs<T>& in) { return project(r, in); },
        [&](OpRun& run, const std::vector<Tensor>& in) { return apply(run, r, in); });
}

TEST(LowRank, PadsOnEitherSide) {
  check("no pads", runs(6, {{0, 6}, {0, 6}}), 6, 4, 5);
  check("pads right", runs(7, {{0, 4}, {0, 7}, {0, 1}}), 9, 3, 6);
  check("pads left", runs(7, {{3, 7}, {0, 7}, {6, 7}}), 9, 3, 6);
  check("pads on both sides", runs(9, {{2, 7}, {4, 9}}), 8, 5, 3);
  check("a sample without tokens", runs(5, {{0, 3}, {2, 2}, {1, 5}}), 5, 4, 3);
}

TEST(LowRank, Sizes) {
  check("one of each", runs(1, {{0, 1}}), 1, 1, 1);
  check("more slots than tokens", runs(3, {{0, 3}}), 3, 37, 2);
  check("wide", runs(5, {{0, 5}}), 5, 2, 131);
  check("no samples", {0, 4, {}, {}}, 4, 2, 3);
  check("no tokens", {2, 0, {}, {0, 0}}, 3, 2, 3);
}

TEST(LowRank, RanksInAnyOrder) {
  check("backwards", {1, 5, {4, 3, 2, 1, 0}, {5}}, 6, 3, 4);
  check("pads inside", {2, 6, {0, -1, 1, -1, -1, 2, -1, 0, 1, 2, -1, 3}, {3, 4}}, 5, 3, 4);
  check("a rank that nobody has", {1, 4, {3, 0, -1, 5}, {3}}, 8, 3, 4);
}

/// As a model in bf16 has it: x is f32, rounded for the product alone, and its gradient stays f32, summed over both
/// uses without being rounded.
TEST(LowRank, OfCastOperandGivesGradientInF32) {
  for (const std::int64_t width : {24, 7}) {
    const Ranks r = runs(70, {{0, 70}, {3, 41}});
    const std::int64_t slots = 5, positions = 70;
    const std::vector<float> xs = rounded(normal_values(2 * 70 * width, 3, 0), DType::bf16);
    const std::vector<float> es = rounded(normal_values(positions * slots, 3, 1), DType::bf16);
    const std::vector<float> rs = rounded(normal_values(2 * slots * width, 3, 2), DType::bf16);
    Place place;
    Context& context = place;
    Tape tape(context);
    OpRun run{tape};
    const Tensor x = tape.input(run.floats({2, 70, width}, xs)), e = run.floats({positions, slots}, es);
    const Tensor weights = run.floats({2, slots, width}, rs), half = tape.cast(x, DType::bf16);
    const Tensor y1 = apply(run, r, {half, e}), y2 = apply(run, r, {half, e});
    tape.backward(
        tape.apply(WeightedSum{1, 1}, tape.apply(WeightedTotal{weights}, y1), tape.apply(WeightedTotal{weights}, y2)));
    ASSERT_EQ(tape.grad(x).dtype(), DType::f32);
    const std::vector<float> dx = read(tape.grad(x));
    for (std::size_t row = 0; row < 140; ++row)
      for (std::size_t c = 0; c < static_cast<std::size_t>(width); ++c) {
        const std::size_t b = row / 70;
        double want = 0, size = 0;
        for (std::size_t j = 0; r.rank[row] >= 0 && j < 5; ++j) {
          const double term = 2.0 * es[static_cast<std::size_t>(r.rank[row]) * 5 + j] *
                              rs[(b * 5 + j) * static_cast<std::size_t>(width) + c] / std::sqrt(r.lengths[b]);
          want += term, size += std::abs(term);
        }
        // Sums of few terms in f32; a gradient rounded to bf16 would be off by up to 4e-3.
        EXPECT_NEAR(dx[row * static_cast<std::size_t>(width) + c], want, 8 * 6e-8 * size) << row << " " << c;
      }
  }
}

std::vector<float> project_floats(const Ranks& r, const std::vector<float>& x, const std::vector<float>& e,
                                  std::int64_t slots, std::int64_t width) {
  Place place;
  Context& context = place;
  Tape tape(context, false);
  OpRun run{tape};
  const Tensor y = apply(
      run, r,
      {run.floats({r.batch, r.tokens, width}, x), run.floats({static_cast<std::int64_t>(e.size()) / slots, slots}, e)});
  return read(y);
}

/// With k = len and e = sqrt(len) I the projection gives the tokens back, and attention over it is exact.
TEST(LowRank, IsExactForAsManySlotsAsTokens) {
  for (std::int64_t n : {1, 5, 16, 33}) {
    const std::vector<float> x = normal_values(n * 7, 5, static_cast<std::uint64_t>(n));
    std::vector<float> e(static_cast<std::size_t>(n * n), 0.0f);
    for (std::int64_t i = 0; i < n; ++i) e[static_cast<std::size_t>(i * n + i)] = std::sqrt(static_cast<float>(n));
    const std::vector<float> y = project_floats(runs(n, {{0, static_cast<std::int32_t>(n)}}), x, e, n, 7);
    for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(y[i], x[i], 3e-7f * std::abs(x[i])) << n << " tokens";
  }
}

TEST(LowRank, WhatStandsAtPadsDoesNotMatter) {
  const std::int64_t width = 5, slots = 3;
  const std::vector<float> e = normal_values(8 * slots, 2, 0), valid = normal_values(4 * width, 2, 1);
  const auto with_pads = [&](std::int32_t left, std::int32_t right, float pad) {
    std::vector<float> x(static_cast<std::size_t>(left * width), pad);
    x.insert(x.end(), valid.begin(), valid.end());
    x.insert(x.end(), static_cast<std::size_t>(right * width), pad);
    return project_floats(runs(left + 4 + right, {{left, left + 4}}), x, e, slots, width);
  };
  const std::vector<float> alone = with_pads(0, 0, 0);
  EXPECT_EQ(with_pads(0, 3, std::nanf("")), alone);
  EXPECT_EQ(with_pads(3, 0, std::nanf("")), alone);
  EXPECT_EQ(with_pads(2, 9, 1e30f), alone);
}

struct Outcome {
  std::vector<float> y, dx, de;
  bool operator==(const Outcome&) const = default;
};

Outcome run_threads(const Ranks& r, std::int64_t positions, std::int64_t slots, std::int64_t width, int threads) {
  Place place(threads);
  Context& context = place;
  Tape tape(context);
  OpRun run{tape};
  const Tensor x = run.floats({r.batch, r.tokens, width}, normal_values(r.batch * r.tokens * width, 3, 0));
  const Tensor e = run.floats({positions, slots}, normal_values(positions * slots, 3, 1));
  const Tensor dy = run.floats({r.batch, slots, width}, normal_values(r.batch * slots * width, 3, 2));
  const Tensor rank = run.ints({r.batch, r.tokens}, r.rank), lengths = run.ints({r.batch}, r.lengths);
  const Tensor y = context.like(dy), dx = context.like(x), de = context.like(e);
  context.launch(LowRankForward{x, e, rank, lengths, y});
  context.launch(LowRankBackward{x, e, rank, lengths, dy, {dx, false}, {de, false}});
  return {read(y), read(dx), read(de)};
}

template <class T>
struct Defined {
  std::vector<T> y, dx, de;
};

template <class T>
Defined<T> define(const Ranks& r, std::int64_t positions, std::int64_t slots, std::int64_t width) {
  const auto x = normal_values(r.batch * r.tokens * width, 3, 0), e = normal_values(positions * slots, 3, 1);
  const auto dy = normal_values(r.batch * slots * width, 3, 2);
  Defined<T> out{std::vector<T>(dy.size()), std::vector<T>(x.size()), std::vector<T>(e.size())};
  for (std::int64_t b = 0; b < r.batch; ++b) {
    const T scale = T(1) / std::sqrt(static_cast<T>(r.lengths[static_cast<std::size_t>(b)]));
    for (std::int64_t s = 0; s < r.tokens; ++s) {
      const std::int32_t rank = r.rank[static_cast<std::size_t>(b * r.tokens + s)];
      if (rank < 0) continue;
      for (std::int64_t j = 0; j < slots; ++j)
        for (std::int64_t c = 0; c < width; ++c) {
          const auto yi = static_cast<std::size_t>((b * slots + j) * width + c);
          const auto xi = static_cast<std::size_t>((b * r.tokens + s) * width + c);
          const auto ei = static_cast<std::size_t>(rank * slots + j);
          out.y[yi] += scale * T(e[ei]) * T(x[xi]);
          out.dx[xi] += scale * T(e[ei]) * T(dy[yi]);
          out.de[ei] += scale * T(x[xi]) * T(dy[yi]);
        }
    }
  }
  return out;
}

void check_large(const std::string& what, const Ranks& r, std::int64_t positions, std::int64_t slots,
                 std::int64_t width) {
  const Outcome got = run_threads(r, positions, slots, width, 1);
  const auto exact = define<double>(r, positions, slots, width);
  const auto naive = define<float>(r, positions, slots, width);
  expect_near(got.y, wanted(exact.y, naive.y), what + ", y");
  expect_near(got.dx, wanted(exact.dx, naive.dx), what + ", dx");
  expect_near(got.de, wanted(exact.de, naive.de), what + ", de");
  for (int threads : backend().threads) EXPECT_EQ(run_threads(r, positions, slots, width, threads), got) << what;
}

TEST(LowRank, LargeSizesAndThreads) {
  check_large("batch", runs(27, {{0, 27}, {0, 13}, {5, 27}, {26, 27}}), 30, 33, 150);
  check_large("several chunks of tokens", runs(1100, {{0, 1100}, {450, 1090}}), 1100, 7, 20);
  check_large("a chunk of pads", runs(1600, {{0, 3}, {1100, 1600}}), 500, 5, 10);
  check_large("several groups of samples", runs(3, {{0, 3}, {1, 3}}), 3, 530, 990);
}

}  // namespace
}  // namespace cald::test
