// Philox against its published vectors, and what is drawn from it.
#include "engine/base/rng.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <set>
#include <vector>

namespace cald {
namespace {

TEST(Philox, KnownAnswers) {
  // Random123's kat_vectors, philox4x32-10.
  const struct {
    PhiloxWords counter;
    std::uint32_t k0, k1;
    PhiloxWords want;
  } cases[] = {
      {{{0, 0, 0, 0}}, 0, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
      {{{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}},
       0xffffffff,
       0xffffffff,
       {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
      {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
       0xa4093822,
       0x299f31d0,
       {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}},
  };
  for (const auto& c : cases) {
    const PhiloxWords got = philox(c.counter, c.k0, c.k1);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(got.w[i], c.want.w[i]);
  }
}

TEST(DropoutBits, EveryPartOfTheKeyCounts) {
  const RngKey key{0x0123456789abcdefull, 5, 9};
  const auto word = [](const RngKey& k, std::uint32_t sample, std::uint32_t position, std::uint32_t block) {
    return dropout_bits(k, sample, position, block).w[0];
  };
  std::set<std::uint32_t> seen{word(key, 1, 2, 3),
                               word(key, 2, 2, 3),
                               word(key, 1, 3, 3),
                               word(key, 1, 2, 4),
                               word(key, 1, 2, 2),
                               word({key.seed + 1, 5, 9}, 1, 2, 3),
                               word({key.seed + (1ull << 32), 5, 9}, 1, 2, 3),
                               word({key.seed, 6, 9}, 1, 2, 3),
                               word({key.seed, 5, 10}, 1, 2, 3)};
  EXPECT_EQ(seen.size(), 9u);
}

TEST(DropoutBits, AreTheHalvesOfSevenRoundsInOrder) {
  const RngKey key{0xa4093822299f31d0ull, 0, 7};
  const PhiloxWords drawn = philox<7>({{3, 2, 1, 7}}, 0x299f31d0u, 0xa4093822u);
  for (int feature = 0; feature < 8; ++feature) {
    const DropoutBits bits = dropout_bits(key, 1, 2, static_cast<std::uint32_t>(6 + feature / 4));
    EXPECT_EQ(bits[feature % 4], drawn.w[feature / 2] >> feature % 2 * 16 & 0xFFFFu) << feature;
  }
}

TEST(Dropout, ThresholdIsTheKeptShareAndTheScaleItsInverse) {
  for (float p : {1e-5f, 0.1f, 0.25f, 0.5f, 0.9f, 0.999999f}) {
    const Dropout d{p, {}};
    EXPECT_NEAR(d.threshold() / 65536.0, 1.0 - static_cast<double>(p), p > 0.9f ? 1.0 / 65536 : 0.5 / 65536);
    EXPECT_EQ(d.scale() * static_cast<float>(d.threshold()), 65536.0f) << p;
  }
  EXPECT_FALSE(Dropout{}.active());
}

/// Each bit of 2^17 draws is a coin, and neighbours differ as independent ones do: within five standard deviations.
TEST(DropoutBits, AreEvenlySpread) {
  const RngKey key{42, 3, 5};
  constexpr int kDraws = 1 << 17;
  std::vector<int> ones(64, 0), agree(64, 0);
  std::uint64_t before = 0;
  for (int i = 0; i < kDraws; ++i) {
    const DropoutBits b =
        dropout_bits(key, 7, static_cast<std::uint32_t>(i / 128), static_cast<std::uint32_t>(i % 128));
    const std::uint64_t now = std::uint64_t{b.w[1]} << 32 | b.w[0];
    for (std::size_t bit = 0; bit < 64; ++bit) {
      ones[bit] += static_cast<int>(now >> bit & 1);
      agree[bit] += static_cast<int>(~(now ^ before) >> bit & 1);
    }
    before = now;
  }
  const double within = 5 * std::sqrt(kDraws * 0.25);
  for (std::size_t bit = 0; bit < 64; ++bit) {
    EXPECT_NEAR(ones[bit], kDraws / 2, within) << "bit " << bit;
    EXPECT_NEAR(agree[bit], kDraws / 2, within) << "bit " << bit;
  }
}

TEST(UniformFrom, IsInTheHalfOpenInterval) {
  EXPECT_GT(uniform_from(0), 0.0f);
  EXPECT_EQ(uniform_from(0xffffffffu), 1.0f);
  EXPECT_LT(uniform_from(0x7fffffffu), uniform_from(0x80000000u) + 1e-7f);
}

TEST(RandomStream, DependsOnSeedAndStreamAlone) {
  const auto draw = [](std::uint64_t seed, std::uint64_t stream) {
    RandomStream r(seed, stream);
    std::vector<std::uint32_t> v;
    for (int i = 0; i < 9; ++i) v.push_back(r.next());
    return v;
  };
  EXPECT_EQ(draw(1, 2), draw(1, 2));
  EXPECT_NE(draw(1, 2), draw(2, 2));
  EXPECT_NE(draw(1, 2), draw(1, 3));
  EXPECT_NE(draw(1, 2), draw(1 + (1ull << 32), 2));
  EXPECT_NE(draw(1, 2), draw(1, 2 + (1ull << 32)));
}

TEST(RandomStream, BelowHasNoBias) {
  // With x % n alone, 3 * 2^30 would give values below 2^30 half of the time instead of a third of it.
  RandomStream r(3, 4);
  constexpr std::uint32_t n = 3u << 30;
  constexpr int kDraws = 30000;
  int low = 0;
  for (int i = 0; i < kDraws; ++i) {
    const std::uint32_t x = r.below(n);
    ASSERT_LT(x, n);
    low += x < (1u << 30);
  }
  EXPECT_NEAR(low, kDraws / 3, 4 * 82);  // four standard deviations
}

TEST(RandomStream, BelowReachesItsEnds) {
  RandomStream r(5, 6);
  for (std::uint32_t n : {1u, 2u, 3u, 7u}) {
    std::set<std::uint32_t> seen;
    for (int i = 0; i < 200; ++i) seen.insert(r.below(n));
    EXPECT_EQ(seen.size(), n);
    EXPECT_EQ(*seen.rbegin(), n - 1);
  }
  EXPECT_LT(r.below(0xffffffffu), 0xffffffffu);
}

TEST(RandomStream, NormalHasItsMoments) {
  RandomStream r(7, 8);
  constexpr int n = 40000;
  double m1 = 0, m2 = 0, m4 = 0;
  for (int i = 0; i < n; ++i) {
    const double x = r.normal();
    m1 += x / n, m2 += x * x / n, m4 += x * x * x * x / n;
  }
  EXPECT_NEAR(m1, 0.0, 4 / 200.0);
  EXPECT_NEAR(m2, 1.0, 4 * 1.41 / 200);
  EXPECT_NEAR(m4, 3.0, 4 * 9.8 / 200);
}

}  // namespace
}  // namespace cald
