// Attention in f32 and bf16 on CUDA against its definition in double.
#include "tests/cuda/attention_run.h"

namespace cald::test {
namespace {

using bf16 = __nv_bfloat16;

template <class T, class Rounded>
void check_in(const AttentionCase& c, const Layout& layout, const Rounded& rounded, double epsilon) {
  Operands in(c);
  for (std::vector<float>* values : {&in.q, &in.k, &in.v, &in.dy})
    for (float& x : *values) x = rounded(x);
  const AttentionValues<float> got = run_attention<T>(c, in, layout);
  AttentionValues<double> want = attention_reference<double>(c, in.q, in.k, in.v, in.dy);
  AttentionValues<float> naive = attention_reference<float>(c, in.q, in.k, in.v, in.dy, rounded);
  expect_near(got.y, want.y, tolerance_of(want.y, naive.y, epsilon), "y");
  expect_near(got.lse, want.lse, tolerance_of(want.lse, naive.lse), "lse");
  const auto gradient = [&](bool wanted, const std::vector<float>& g, std::vector<double>& w, std::vector<float>& n,
                            const char* what) {
    if (!wanted) return;
    std::vector<float> before;
    if (layout.add) before = normal_values(static_cast<std::int64_t>(w.size()), 9);
    for (float& x : before) x = rounded(x);
    add_to(w, before), add_to(n, before);
    for (float& x : n) x = rounded(x);
    expect_near(g, w, tolerance_of(w, n, epsilon), what);
  };
  gradient(layout.want_dq, got.dq, want.dq, naive.dq, "dq");
  gradient(layout.want_dk, got.dk, want.dk, naive.dk, "dk");
  gradient(layout.want_dv, got.dv, want.dv, naive.dv, "dv");
}

void check_case(const char* name, const AttentionCase& c, const Layout& layout = {}) {
  {
    SCOPED_TRACE(std::string(name) + ", f32");
    check_in<float>(c, layout, Unrounded(), std::numeric_limits<float>::epsilon());
  }
  SCOPED_TRACE(std::string(name) + ", bf16");
  check_in<bf16>(c, layout, RoundedToBf16(), 1.0 / 128);
}

const Dropout kDropout{0.3f, {0x1234567890ABCDEFull, 7, 3}};

TEST(CudaAttention, Sizes) {
  check_case("one of each", {1, 1, 1, 1, 1});
  check_case("one token", {1, 2, 1, 1, 8});
  check_case("odd", {2, 3, 3, 7, 5});
  check_case("more than a tile", {1, 2, 70, 131, 32});
  check_case("more queries than keys", {1, 2, 99, 5, 24});
  check_case("one query", {2, 1, 1, 67, 36});
}

TEST(CudaAttention, HeadSizes) {
  for (const std::int64_t d : {31, 64, 80, 96, 100, 128, 250, 256})
    check_case(std::to_string(d).c_str(), {1, 1, 35, 37, d, {}, d % 4 == 0});
}

TEST(CudaAttention, NothingToDo) {
  check_case("no samples", {0, 2, 3, 3, 4});
  check_case("no queries", {2, 2, 0, 70, 4});
  check_case("no keys", {2, 2, 70, 0, 4});
  check_case("no keys, rows of vectors", {1, 1, 5, 0, 8});
}

/// Of `keys` keys these count.
std::vector<std::int32_t> only(std::int64_t keys, std::initializer_list<std::size_t> counted) {
  std::vector<std::int32_t> mask(static_cast<std::size_t>(keys));
  for (const std::size_t j : counted) mask[j] = 1;
  return mask;
}

TEST(CudaAttention, Masks) {
  check_case("holes", {3, 2, 9, 90, 8, holes(3, 90)});
  check_case("first tile without a key", {1, 1, 5, 140, 8, only(140, {70, 139})});
  check_case("a tile's first key alone", {1, 1, 5, 140, 8, only(140, {0, 64})});
  check_case("a sample without any key", {2, 2, 4, 4, 4, {1, 1, 0, 1, 0, 0, 0, 0}});
}

TEST(CudaAttention, Causal) {
  check_case("square", {1, 2, 70, 70, 8, {}, true});
  check_case("more keys", {1, 1, 40, 100, 8, {}, true});
  check_case("queries before the first key", {1, 1, 100, 40, 8, {}, true});
  check_case("with holes", {2, 1, 70, 70, 8, holes(2, 70), true});
  check_case("a tile of queries before the first key, with holes", {1, 1, 140, 40, 8, holes(1, 40), true});
}

TEST(CudaAttention, Dropout) {
  check_case("plain", {2, 2, 35, 70, 8, {}, false, kDropout});
  check_case("causal with holes", {2, 2, 70, 66, 12, holes(2, 66), true, kDropout});
  check_case("two rows a thread", {1, 2, 37, 39, 130, {}, false, kDropout});
}

TEST(CudaAttention, Layouts) {
  check_case("aligned rows with gaps", {2, 2, 9, 70, 32}, {4});
  check_case("aligned rows with gaps, by 8", {2, 2, 9, 70, 32}, {8});
  check_case("rows of any alignment", {2, 2, 9, 70, 32, holes(2, 70)}, {3});
  check_case("added", {2, 2, 9, 11, 33}, {0, true});
  check_case("added, aligned", {1, 2, 9, 11, 64}, {0, true});
  check_case("added, a sample without any key", {2, 2, 4, 4, 4, {1, 1, 0, 1, 0, 0, 0, 0}}, {0, true});
  check_case("dq alone", {1, 2, 9, 11, 8}, {0, false, true, false, false});
  check_case("dk alone", {1, 2, 9, 11, 8}, {0, false, false, true, false});
  check_case("dv alone", {1, 2, 9, 11, 8}, {0, false, false, false, true});
}

template <class T>
void check_schedules(const AttentionCase& c) {
  const Operands in(c);
  const AttentionValues<float> first = run_attention<T>(c, in);
  with_every_schedule([&] {
    const AttentionValues<float> again = run_attention<T>(c, in);
    EXPECT_EQ(first.y, again.y);
    EXPECT_EQ(first.lse, again.lse);
    EXPECT_EQ(first.dq, again.dq);
    EXPECT_EQ(first.dk, again.dk);
    EXPECT_EQ(first.dv, again.dv);
  });
}

TEST(CudaAttention, EveryScheduleGivesTheSameBits) {
  check_schedules<float>({2, 2, 70, 67, 8, holes(2, 67), true, kDropout});
  check_schedules<bf16>({2, 2, 70, 150, 8, holes(2, 150), true, kDropout});
}

template <class T>
void check_uncounted_keys() {
  const AttentionCase c{1, 2, 9, 70, 8, holes(1, 70)};
  Operands in(c);
  const AttentionValues<float> clean = run_attention<T>(c, in);
  const auto width = static_cast<std::size_t>(c.width());
  for (std::size_t j = 0; j < c.mask.size(); ++j)
    for (std::size_t i = j * width; !c.mask[j] && i < (j + 1) * width; ++i) in.k[i] = in.v[i] = std::nanf("");
  const AttentionValues<float> got = run_attention<T>(c, in);
  EXPECT_EQ(got.y, clean.y);
  EXPECT_EQ(got.dq, clean.dq);
  EXPECT_EQ(got.dk, clean.dk);
  EXPECT_EQ(got.dv, clean.dv);
}

TEST(CudaAttention, KeysThatDoNotCountMayHoldAnything) {
  check_uncounted_keys<float>();
  check_uncounted_keys<bf16>();
}

/// With q = 0 and v[j] the unit vector of feature j, feature j of y is nonzero if and only if key j is kept.
template <class T>
void check_dropped() {
  const AttentionCase c{2, 3, 21, 64, 64, {}, false, kDropout};
  Operands in(c);
  std::fill(in.q.begin(), in.q.end(), 0.0f);
  for (std::size_t i = 0; i < in.v.size(); ++i) in.v[i] = i % 64 == i / static_cast<std::size_t>(c.width()) % 64;
  const std::vector<float> y = run_attention<T>(c, in).y;
  for (std::int64_t i = 0; i < c.batch * c.queries * c.width(); ++i) {
    const std::int64_t row = i / c.width(), h = i / 64 % 3;
    ASSERT_EQ(y[static_cast<std::size_t>(i)] != 0, c.keeps(row / c.queries, h, row % c.queries, i % 64)) << i;
  }
}

TEST(CudaAttention, DropsTheSameElementsAsTheCpu) {
  check_dropped<float>();
  check_dropped<bf16>();
}

TEST(CudaAttention, RefusesHeadsAbove256) { EXPECT_THROW(check_case("257", {1, 1, 2, 2, 257}), Error); }

}  // namespace
}  // namespace cald::test
