// Softmax attention: masks, causality, dropout, sizes, and independence from the number of threads.
#include <gtest/gtest.h>

#include "kernels/elementwise.h"
#include "ops/attention.h"
#include "tests/ops/harness.h"

namespace cald::test {
namespace {

struct Setting {
  std::int64_t batch, queries, keys, head_size;
  int heads = 2;
  std::vector<std::int32_t> mask{};  ///< (B, Sk)
  bool causal = false;
  Dropout dropout{};
  std::vector<std::int32_t> samples{};
  float scale = 0.4f;

  bool sees(std::int64_t b, std::int64_t i, std::int64_t j) const {
    return (mask.empty() || mask[static_cast<std::size_t>(b * keys + j)]) && (!causal || j <= i + keys - queries);
  }
  double keep(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const {
    if (!dropout.active()) return 1;
    const auto sample = static_cast<std::uint32_t>(samples[static_cast<std::size_t>(b)]);
    const DropoutBits bits = dropout_bits(dropout.key, sample, static_cast<std::uint32_t>(h * queries + i),
                                          static_cast<std::uint32_t>(j / 4));
    return bits[static_cast<int>(j % 4)] < dropout.threshold() ? static_cast<double>(dropout.scale()) : 0;
  }
};

/// One head of one sample, by the definition.
template <class T>
void attend(const Setting& s, const Inputs<T>& in, std::int64_t b, std::int64_t h, Array<T>& y) {
  const auto &q = in[0], &k = in[1], &v = in[2];
  const std::int64_t d = s.head_size;
  for (std::int64_t i = 0; i < s.queries; ++i) {
    std::vector<T> p(static_cast<std::size_t>(s.keys), T(0));
    T sum(0), top(-1e30);
    bool any = false;
    for (std::int64_t j = 0; j < s.keys; ++j) {
      if (!s.sees(b, i, j)) continue;
      T& x = p[static_cast<std::size_t>(j)];
      for (std::int64_t c = 0; c < d; ++c) x += q(b, i, h * d + c) * k(b, j, h * d + c);
      x *= T(static_cast<double>(s.scale));
      if (x > top) top = x;
      any = true;
    }
    if (!any) continue;
    for (std::int64_t j = 0; j < s.keys; ++j)
      if (s.sees(b, i, j)) sum += p[static_cast<std::size_t>(j)] = exp(p[static_cast<std::size_t>(j)] - top);
    for (std::int64_t j = 0; j < s.keys; ++j)
      if (s.sees(b, i, j))
        for (std::int64_t c = 0; c < d; ++c)
          y(b, i, h * d + c) += p[static_cast<std::size_t>(j)] / sum * T(s.keep(b, h, i, j)) * v(b, j, h * d + c);
  }
}

template <class T>
Array<T> attention(const Setting& s, const Inputs<T>& in) {
  Array<T> y(in[0].shape);
  for (std::int64_t b = 0; b < s.batch; ++b)
    for (std::int64_t h = 0; h < s.heads; ++h) attend(s, in, b, h, y);
  return y;
}

Tensor apply(OpRun& run, const Setting& s, const std::vector<Tensor>& in) {
  const Tensor mask = s.mask.empty() ? Tensor{} : run.ints({s.batch, s.keys}, s.mask);
  const Tensor samples = s.samples.empty() ? Tensor{} : run.ints({s.batch}, s.samples);
  return run.tape.apply(Attention{s.heads, s.scale, s.causal, s.dropout}, in[0], in[1], in[2], mask, samples);
}

void check(const std::string& name, const Setting& s) {
  const std::int64_t width = s.heads * s.head_size;
  const Case c{name, {{{s.batch, s.queries, width}}, {{s.batch, s.keys, width}}, {{s.batch, s.keys, width}}}};
  // A product with the probabilities, or their gradients, has them in bf16.
  for (const Case& each : {c, in_bf16(c, {0, 1, 2}, DType::bf16, 2)})
    check_op(
        each, [&]<class T>(const Inputs<T>& in) { return attention(s, in); },
        [&](OpRun& run, const std::vector<Tensor>& in) { return apply(run, s, in); });
}

TEST(Attention, SizesAndHeads) {
  check("one token", {1, 1, 1, 8});
  check("3 x 3", {2, 3, 3, 5, 3});
  check("head size 1", {1, 4, 4, 1, 3});
  check("head size 24", {1, 9, 9, 24, 1});
  check("head size 36", {1, 7, 7, 36, 1});
  check("fewer queries than keys", {1, 3, 17, 4});
  check("more queries than keys", {1, 19, 5, 4});
  check("one query", {2, 1, 11, 3});
}

TEST(Attention, NoSamplesQueriesOrKeys) {
  check("no samples", {0, 3, 3, 4});
  check("no queries", {2, 0, 3, 4});
  check("no keys", {2, 3, 0, 4});
}

TEST(Attention, Masks) {
  check("pads right", {2, 5, 5, 4, 2, {1, 1, 1, 0, 0, 1, 1, 1, 1, 0}});
  check("pads left", {2, 5, 5, 4, 2, {0, 0, 0, 1, 1, 0, 1, 1, 1, 1}});
  check("holes", {2, 4, 7, 3, 2, {0, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1}});
  check("a sample without any key", {3, 4, 4, 4, 2, {1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1}});
}

TEST(Attention, Causal) {
  check("square", {2, 6, 6, 4, 2, {}, true});
  check("more keys", {1, 3, 8, 4, 2, {}, true});
  check("queries before the first key", {1, 7, 4, 4, 2, {}, true});
  check("with pads right", {1, 6, 6, 4, 2, {1, 1, 1, 1, 0, 0}, true});
  check("with pads left", {1, 6, 6, 4, 2, {0, 0, 1, 1, 1, 1}, true});
  check("with holes", {1, 6, 6, 4, 2, {0, 1, 0, 1, 0, 1}, true});
}

TEST(Attention, Dropout) {
  const Dropout d{0.3f, {0x1234567890ABCDEFull, 7, 3}};
  check("dropout", {2, 5, 9, 4, 2, {}, false, d, {41, 5}});
  check("dropout, pads left by no multiple of 4", {1, 4, 10, 3, 2, {0, 0, 0, 0, 0, 1, 1, 1, 1, 1}, false, d, {2}});
  check("dropout, causal with holes", {1, 12, 12, 8, 2, {1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1}, true, d, {77}});
}

struct Outcome {
  std::vector<float> y, lse, dq, dk, dv;
  bool operator==(const Outcome&) const = default;
};

/// Forward and backward on the given q, k, v and dy, as f32 or, if they are bf16's numbers, as bf16.
Outcome run_blocks(const Setting& s, int threads, const std::vector<float> (&values)[4], DType dtype = DType::f32) {
  Place place(threads);
  Context& context = place;
  const std::int64_t width = s.heads * s.head_size;
  const Shape rows{s.batch, s.queries, width}, key_rows{s.batch, s.keys, width};
  const auto cast = [&](const Tensor& x, DType to) {
    if (x.dtype() == to) return x;
    Tensor y = context.empty(x.shape(), to);
    context.launch(Copy{x, y});
    return y;
  };
  const auto operand = [&](const Shape& shape, int i) { return cast(tensor_of(context, shape, values[i]), dtype); };
  const auto result = [&](const Tensor& x) { return read(cast(x, DType::f32)); };
  const Tensor q = operand(rows, 0), k = operand(key_rows, 1), v = operand(key_rows, 2), dy = operand(rows, 3);
  const Tensor mask = s.mask.empty() ? Tensor{} : tensor_of(context, {s.batch, s.keys}, s.mask);
  const Tensor samples = s.samples.empty() ? Tensor{} : tensor_of(context, {s.batch}, s.samples);
  const Tensor y = context.like(q), lse = context.empty({s.batch, s.heads, s.queries});
  const Tensor dq = context.like(q), dk = context.like(k), dv = context.like(v);
  context.launch(AttentionForward{q, k, v, mask, samples, y, lse, s.heads, s.scale, s.causal, s.dropout});
  context.launch(AttentionBackward{q,
                                   k,
                                   v,
                                   mask,
                                   samples,
                                   y,
                                   lse,
                                   dy,
                                   {dq, false},
                                   {dk, false},
                                   {dv, false},
                                   s.heads,
                                   s.scale,
                                   s.causal,
                                   s.dropout});
  return {result(y), result(lse), result(dq), result(dk), result(dv)};
}

/// What the definition gives for the same, in double or float. Gradients: ds = p (dp - delta) and so on. In bf16 p and
/// ds are rounded for their products, delta comes from the rounded y (as in FlashAttention), and results are rounded.
template <class T>
struct Defined {
  std::vector<T> y, lse, dq, dk, dv;
};

template <class T>
Defined<T> define(const Setting& s, const std::vector<float> (&values)[4], DType dtype = DType::f32) {
  const auto round = [&](T x) { return dtype == DType::bf16 ? T(rounded({static_cast<float>(x)}, dtype)[0]) : x; };
  const std::int64_t d = s.head_size, width = s.heads * d, nq = s.batch * s.queries, nk = s.batch * s.keys;
  const auto at = [&](std::int64_t row, std::int64_t c) { return static_cast<std::size_t>(row * width + c); };
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  Defined<T> r{std::vector<T>(size(nq * width)), std::vector<T>(size(nq * s.heads)), std::vector<T>(size(nq * width)),
               std::vector<T>(size(nk * width)), std::vector<T>(size(nk * width))};
  std::vector<T> p(size(s.keys)), dp(size(s.keys));
  for (std::int64_t b = 0; b < s.batch; ++b)
    for (std::int64_t head = 0; head < s.heads; ++head)
      for (std::int64_t i = 0; i < s.queries; ++i) {
        const std::int64_t row = b * s.queries + i, c0 = head * d;
        T top(-1e30f), sum(0), delta(0);
        for (std::int64_t j = 0; j < s.keys; ++j) {
          T x(0), g(0);
          for (std::int64_t c = c0; c < c0 + d; ++c) {
            x += T(values[0][at(row, c)]) * T(values[1][at(b * s.keys + j, c)]);
            g += T(values[3][at(row, c)]) * T(values[2][at(b * s.keys + j, c)]);
          }
          p[size(j)] = x * T(s.scale), dp[size(j)] = g * static_cast<T>(s.keep(b, head, i, j));
          if (s.sees(b, i, j)) top = std::max(top, p[size(j)]);
        }
        for (std::int64_t j = 0; j < s.keys; ++j) {
          p[size(j)] = s.sees(b, i, j) ? std::exp(p[size(j)] - top) : T(0);
          sum += p[size(j)];
        }
        r.lse[size((b * s.heads + head) * s.queries + i)] = top + std::log(sum);
        for (std::int64_t j = 0; j < s.keys; ++j) delta += (p[size(j)] /= sum) * dp[size(j)];
        const auto kept = [&](std::int64_t j) { return round(p[size(j)] * static_cast<T>(s.keep(b, head, i, j))); };
        for (std::int64_t c = c0; c < c0 + d; ++c) {
          T& y = r.y[at(row, c)];
          for (std::int64_t j = 0; j < s.keys; ++j) y += kept(j) * T(values[2][at(b * s.keys + j, c)]);
          y = round(y);
        }
        if (dtype == DType::bf16) {
          delta = T(0);
          for (std::int64_t c = c0; c < c0 + d; ++c) delta += r.y[at(row, c)] * T(values[3][at(row, c)]);
        }
        for (std::int64_t j = 0; j < s.keys; ++j) {
          const T ds = round(p[size(j)] * (dp[size(j)] - delta)) * T(s.scale);
          for (std::int64_t c = c0; c < c0 + d; ++c) {
            const std::size_t key = at(b * s.keys + j, c);
            r.dq[at(row, c)] += ds * T(values[1][key]);
            r.dk[key] += ds * T(values[0][at(row, c)]);
            r.dv[key] += kept(j) * T(values[3][at(row, c)]);
          }
        }
      }
  for (std::vector<T>* x : {&r.dq, &r.dk, &r.dv})
    for (T& v : *x) v = round(v);
  return r;
}

void check_blocks(const Setting& s, const std::string& what, DType dtype = DType::f32) {
  const std::int64_t width = s.heads * s.head_size, nq = s.batch * s.queries * width, nk = s.batch * s.keys * width;
  std::vector<float> values[4];
  Outcome got;
  std::vector<Wanted> want;
  for (std::uint64_t draw = 0; draw < kDraws; ++draw) {
    std::uint64_t stream = 4 * draw;
    std::vector<float> drawn[4];
    for (int i = 0; i < 4; ++i) drawn[i] = rounded(normal_values(i % 3 ? nk : nq, 9, stream++), dtype);
    const Defined<double> exact = define<double>(s, drawn);
    const Defined<float> naive = define<float>(s, drawn, dtype);
    const std::vector<double>* e[] = {&exact.y, &exact.lse, &exact.dq, &exact.dk, &exact.dv};
    const std::vector<float>* n[] = {&naive.y, &naive.lse, &naive.dq, &naive.dk, &naive.dv};
    for (std::size_t i = 0; i < 5; ++i)
      if (draw == 0)
        want.push_back(wanted(*e[i], *n[i]));
      else
        allow(want[i], *e[i], *n[i]);
    if (draw > 0) continue;
    got = run_blocks(s, 1, drawn, dtype);
    std::move(drawn, drawn + 4, values);
  }
  const std::vector<float>* results[] = {&got.y, &got.lse, &got.dq, &got.dk, &got.dv};
  const char* names[] = {", y", ", lse", ", dq", ", dk", ", dv"};
  for (std::size_t i = 0; i < 5; ++i) expect_near(*results[i], want[i], what + names[i]);
  for (int threads : backend().threads)
    EXPECT_TRUE(run_blocks(s, threads, values, dtype) == got) << what << ", " << threads << " threads";
}

/// Valid keys [begin, end) of each sample.
std::vector<std::int32_t> valid(std::int64_t keys, const std::vector<std::pair<std::int64_t, std::int64_t>>& ranges) {
  std::vector<std::int32_t> mask;
  for (const auto& [begin, end] : ranges)
    for (std::int64_t j = 0; j < keys; ++j) mask.push_back(j >= begin && j < end);
  return mask;
}

TEST(Attention, ManyBlocksOfQueries) {
  const Dropout d{0.1f, {99, 1, 2}};
  check_blocks({1, 130, 130, 32}, "130 tokens");
  check_blocks({2, 97, 61, 20, 2, valid(61, {{0, 50}, {13, 61}})}, "pads on either side");
  check_blocks({1, 150, 150, 16, 2, {}, true}, "causal");
  check_blocks({1, 101, 140, 8, 3, valid(140, {{5, 133}}), true}, "causal, more keys");
  check_blocks({2, 70, 90, 24, 1, valid(90, {{0, 90}, {31, 77}}), false, d, {3, 1000}}, "dropout");
  check_blocks({1, 900, 40, 8, 1, {}, false}, "several tasks a head");
  check_blocks({1, 900, 900, 8, 1, {}, true}, "several tasks a head, causal");
}

TEST(Attention, ManyBlocksOfQueriesInBf16) {
  const DType bf16 = DType::bf16;
  check_blocks({1, 130, 130, 32}, "130 tokens", bf16);
  check_blocks({2, 97, 61, 21, 2, valid(61, {{0, 50}, {13, 61}})}, "pads on either side, odd sizes", bf16);
  check_blocks({1, 101, 141, 8, 3, valid(141, {{5, 134}}), true}, "causal, more keys", bf16);
  check_blocks({2, 71, 90, 24, 1, valid(90, {{0, 90}, {31, 77}}), false, {0.1f, {99, 1, 2}}, {3, 1000}}, "dropout",
               bf16);
}

TEST(Attention, WithoutAnyKeyLogSumIsMinusInfinityAndGradientsAreZero) {
  const Setting s{1, 3, 4, 2, 1, {0, 0, 0, 0}};
  const std::vector<float> values[4] = {std::vector<float>(6, 1.0f), std::vector<float>(8, 1.0f),
                                        std::vector<float>(8, 1.0f), std::vector<float>(6, 1.0f)};
  const Outcome got = run_blocks(s, 2, values);
  for (float x : got.lse) EXPECT_EQ(x, -std::numeric_limits<float>::infinity());
  for (const auto* g : {&got.y, &got.dq, &got.dk, &got.dv})
    for (float x : *g) EXPECT_EQ(x, 0.0f);
}

TEST(Attention, ScoresOfMinusInfinityAreAsWithoutKeys) {
  const Setting s{1, 3, 4, 8, 1, {}, false, {}, {}, 1.0f};
  const std::vector<float> values[4] = {std::vector<float>(24, 1e20f), std::vector<float>(32, -1e20f),
                                        std::vector<float>(32, 1.0f), std::vector<float>(24, 1.0f)};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Outcome got = run_blocks(s, 2, values, dtype);
    for (float x : got.lse) EXPECT_EQ(x, -std::numeric_limits<float>::infinity());
    for (const auto* g : {&got.y, &got.dq, &got.dk, &got.dv})
      for (float x : *g) EXPECT_EQ(x, 0.0f);
  }
}

TEST(Attention, NaNsStay) {
  const Setting s{1, 3, 4, 8, 1};
  std::vector<float> values[4] = {normal_values(24, 4, 0), normal_values(32, 4, 1), normal_values(32, 4, 2),
                                  normal_values(24, 4, 3)};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Outcome clean = run_blocks(s, 1, values, dtype);
    std::vector<float> with_nan[4] = {values[0], values[1], values[2], values[3]};
    with_nan[0][9] = std::nanf("");  // of the second query
    const Outcome of_query = run_blocks(s, 1, with_nan, dtype);
    for (std::size_t i = 0; i < 24; ++i)
      EXPECT_TRUE(i / 8 == 1 ? std::isnan(of_query.y[i]) : of_query.y[i] == clean.y[i]) << i;
    with_nan[0] = values[0];
    with_nan[1][17] = std::nanf("");  // of the third key, which every query sees
    for (const float y : run_blocks(s, 1, with_nan, dtype).y) EXPECT_TRUE(std::isnan(y));
  }
}

TEST(Attention, MaskedKeysAreNotEvenRead) {
  Setting s{1, 4, 9, 3, 2, valid(9, {{2, 6}})};
  std::vector<float> values[4] = {normal_values(24, 4, 0), normal_values(54, 4, 1), normal_values(54, 4, 2),
                                  normal_values(24, 4, 3)};
  const Outcome clean = run_blocks(s, 1, values);
  for (std::size_t j : {0u, 1u, 6u, 7u, 8u})
    for (std::size_t c = 0; c < 6; ++c) values[1][j * 6 + c] = values[2][j * 6 + c] = std::nanf("");
  EXPECT_EQ(run_blocks(s, 1, values), clean);
}

TEST(Attention, LargeScoresDoNotOverflow) {
  const Setting s{1, 5, 5, 4, 1, {}, false, {}, {}, 60.0f};
  const std::vector<float> values[4] = {normal_values(20, 4, 0), normal_values(20, 4, 1), normal_values(20, 4, 2),
                                        normal_values(20, 4, 3)};
  const Outcome got = run_blocks(s, 1, values);
  for (const auto* g : {&got.y, &got.lse, &got.dq, &got.dk, &got.dv})
    for (float x : *g) EXPECT_TRUE(std::isfinite(x));
}

}  // namespace
}  // namespace cald::test
