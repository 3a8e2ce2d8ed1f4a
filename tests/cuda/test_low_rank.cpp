// The low-rank projection in f32 on CUDA against its definition in double.
#include "tests/cuda/low_rank_run.h"

namespace cald::test {
namespace {

struct Tolerances {
  double y = 0, dx = 0, de = 0;
};

/// From a few draws, since a small one may happen to be nearly exact in float.
Tolerances tolerances_of(const LowRankCase& c, const std::vector<float>& before_dx,
                         const std::vector<float>& before_de) {
  Tolerances t;
  for (std::uint64_t draw = 0; draw < 4; ++draw) {
    const LowRankInputs in(c, draw);
    LowRankValues<double> want = low_rank_reference<double>(c, in.x, in.e, in.dy);
    LowRankValues<float> naive = low_rank_reference<float>(c, in.x, in.e, in.dy);
    add_to(want.dx, before_dx), add_to(naive.dx, before_dx);
    add_to(want.de, before_de), add_to(naive.de, before_de);
    t.y = std::max(t.y, tolerance_of(want.y, naive.y));
    t.dx = std::max(t.dx, tolerance_of(want.dx, naive.dx));
    t.de = std::max(t.de, tolerance_of(want.de, naive.de));
  }
  return t;
}

void check_case(const char* name, const LowRankCase& c, std::int64_t gap = 0, bool add = false) {
  SCOPED_TRACE(name);
  const LowRankInputs in(c);
  const LowRankValues<float> got = run_low_rank(c, in, gap, add);
  LowRankValues<double> want = low_rank_reference<double>(c, in.x, in.e, in.dy);
  std::vector<float> before_dx, before_de;
  if (add) {
    before_dx = normal_values(static_cast<std::int64_t>(want.dx.size()), 9);
    before_de = normal_values(static_cast<std::int64_t>(want.de.size()), 9);
  }
  const Tolerances allowed = tolerances_of(c, before_dx, before_de);
  add_to(want.dx, before_dx), add_to(want.de, before_de);
  expect_near(got.y, want.y, allowed.y, "y");
  expect_near(got.dx, want.dx, allowed.dx, "dx");
  expect_near(got.de, want.de, allowed.de, "de");
}

TEST(CudaLowRank, Sizes) {
  check_case("one of each", padded_case(1, 1, 1, {0}));
  check_case("odd", padded_case(7, 5, 3, {0, 2}));
  check_case("more than a tile each way", padded_case(70, 67, 65, {0, 30}));
  check_case("whole tiles", padded_case(64, 128, 64, {0}));
  check_case("wide", padded_case(5, 131, 2, {0}));
}

TEST(CudaLowRank, Pads) {
  check_case("on either side", padded_case(40, 8, 4, {0, 33, 33, 7, 39}));
  check_case("a sample without tokens", padded_case(5, 8, 4, {1, 5, 0}));
}

TEST(CudaLowRank, NothingToDo) {
  check_case("no samples", padded_case(5, 8, 4, {}));
  check_case("no tokens", padded_case(0, 8, 4, {0, 0}));
  check_case("no slots", padded_case(5, 8, 0, {0, 0}));
}

TEST(CudaLowRank, RanksInAnyOrder) {
  check_case("backwards", {1, 5, 4, 3, 6, {4, 3, 2, 1, 0}, {5}});
  check_case("pads inside", {2, 6, 4, 3, 5, {0, -1, 1, -1, -1, 2, -1, 0, 1, 2, -1, 3}, {3, 4}});
  check_case("a rank that nobody has", {1, 4, 4, 3, 80, {3, 0, -1, 65}, {3}});
  check_case("rank 0, which nobody has", {1, 4, 4, 3, 80, {3, 2, -1, 65}, {3}});
}

TEST(CudaLowRank, Layouts) {
  check_case("aligned rows with gaps", padded_case(37, 64, 36, {3, 9}), 4);
  check_case("rows of any alignment", padded_case(37, 64, 36, {3, 9}), 3);
  check_case("added", padded_case(9, 33, 5, {0, 9, 2}), 0, true);
  check_case("added, aligned", padded_case(9, 32, 8, {0, 2}), 0, true);
}

/// Samples that begin and end within parts of de's sum, and parts within samples. What counts of the positions is few,
/// so that the definition is quick.
LowRankCase cut_case(std::int64_t positions, std::int64_t slots) {
  LowRankCase c = padded_case(6, 11 * 64 - 7, slots, {0, 3, 1});
  c.positions = positions;
  for (std::int32_t& r : c.rank)
    if (r >= 0) r = static_cast<std::int32_t>((r * 37 + 5) % positions);
  return c;
}

TEST(CudaLowRank, PartsOfTheGradientOfE) {
  check_case("as many as fit beside 16 tiles", cut_case(97, 97));
  check_case("added, aligned rows with gaps", cut_case(97, 100), 4, true);
  check_case("added, rows of any alignment", cut_case(97, 97), 3, true);
  check_case("one", padded_case(37, 64, 36, {3}), 4);
  check_case("one, added, rows of any alignment", padded_case(37, 64, 36, {3}), 3, true);
}

TEST(CudaLowRank, PartsOfTheGradientOfEInBf16) {
  for (const auto& [slots, gap, add] : {std::tuple{97, 0, false}, std::tuple{104, 8, true}, std::tuple{97, 3, true}}) {
    SCOPED_TRACE(slots);
    const LowRankCase c = cut_case(97, slots);
    LowRankInputs in(c);
    std::transform(in.x.begin(), in.x.end(), in.x.begin(), RoundedToBf16());
    std::transform(in.dy.begin(), in.dy.end(), in.dy.begin(), RoundedToBf16());
    std::vector<double> want = low_rank_reference<double>(c, in.x, in.e, in.dy).de;
    std::vector<float> naive = low_rank_reference<float>(c, in.x, in.e, in.dy).de;
    if (add) {
      const std::vector<float> before = normal_values(c.positions * c.slots, 9);
      add_to(want, before), add_to(naive, before);
    }
    expect_near(run_low_rank<__nv_bfloat16>(c, in, gap, add).de, want, tolerance_of(want, naive), "de");
  }
}

TEST(CudaLowRank, EveryScheduleGivesTheSameBits) {
  const LowRankCase c = padded_case(70, 67, 35, {0, 40, 2});
  const LowRankInputs in(c);
  const LowRankValues<float> first = run_low_rank(c, in);
  with_every_schedule([&] {
    const LowRankValues<float> again = run_low_rank(c, in);
    EXPECT_EQ(std::memcmp(first.y.data(), again.y.data(), first.y.size() * sizeof(float)), 0);
    EXPECT_EQ(first.dx, again.dx);
    EXPECT_EQ(first.de, again.de);
  });
}

}  // namespace
}  // namespace cald::test
