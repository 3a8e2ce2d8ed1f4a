// ldmatrix and mma against the layouts of the PTX ISA and against plain products.
#include <bit>
#include <cmath>
#include <random>

#include "tests/emulation/kernels.cuh"
#include "tests/emulation/support.h"

namespace cald::test {
namespace {

template <int kCount, bool kTransposed>
void expect_tiles() {
  std::vector<std::uint16_t> tiles(kCount * 64);
  for (std::size_t i = 0; i < tiles.size(); ++i) tiles[i] = static_cast<std::uint16_t>(i * 7 + 1);
  Buffer<std::uint16_t> in(tiles);
  Buffer<std::uint32_t> out(32 * kCount);
  check(cuda::launch(load_tiles<kCount, kTransposed>, {dim3(1), dim3(32)}, in.get(), out.get()));
  const std::vector<std::uint32_t> got = out.read();
  for (int lane = 0; lane < 32; ++lane)
    for (int m = 0; m < kCount; ++m)
      for (int half = 0; half < 2; ++half) {
        const int r = lane / 4, c = lane % 4 * 2 + half;
        EXPECT_EQ(got[lane * kCount + m] >> half * 16 & 0xffff, tiles[m * 64 + (kTransposed ? c * 8 + r : r * 8 + c)]);
      }
}

TEST(TensorCore, LoadMatrix) {
  with_every_schedule([] {
    expect_tiles<1, false>();
    expect_tiles<1, true>();
    expect_tiles<2, false>();
    expect_tiles<2, true>();
    expect_tiles<4, false>();
    expect_tiles<4, true>();
  });
}

TEST(TensorCore, Bf16Product) {
  const int m = 32, n = 48, k = 80;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<__nv_bfloat16> a(m * k), b(k * n);
  for (auto& v : a) v = __float2bfloat16(normal(random));
  for (auto& v : b) v = __float2bfloat16(normal(random));
  Buffer<__nv_bfloat16> left(a), right(b);
  with_every_schedule([&] {
    Buffer<float> out(m * n);
    check(cuda::launch(matmul_bf16, {dim3(n / 16, m / 16), dim3(32)}, left.get(), right.get(), out.get(), n, k));
    const std::vector<float> got = out.read();
    for (int i = 0; i < m; ++i)
      for (int j = 0; j < n; ++j) {
        double sum = 0, magnitude = 0;
        for (int l = 0; l < k; ++l) {
          const double term = double{__bfloat162float(a[i * k + l])} * __bfloat162float(b[l * n + j]);
          sum += term;
          magnitude += std::abs(term);
        }
        // Products of two bf16 are exact in f32; the k sums round.
        ASSERT_NEAR(got[i * n + j], sum, k * 6e-8 * magnitude);
      }
  });
}

TEST(TensorCore, Tf32Product) {
  std::vector<float> a(16 * 8), b(8 * 8);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = std::sin(static_cast<float>(i));
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = std::cos(static_cast<float>(i) * 1.5f);
  Buffer<float> left(a), right(b), rounded(16 * 8), cut(16 * 8);
  check(cuda::launch(matmul_tf32<true>, {dim3(1), dim3(32)}, left.get(), right.get(), rounded.get()));
  check(cuda::launch(matmul_tf32<false>, {dim3(1), dim3(32)}, left.get(), right.get(), cut.get()));
  auto expect_product = [&](const std::vector<float>& got, auto&& operand) {
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 8; ++j) {
        float sum = 0;
        for (int l = 0; l < 8; ++l) sum += operand(a[i * 8 + l]) * operand(b[l * 8 + j]);
        EXPECT_NEAR(got[i * 8 + j], sum, 1e-6);
      }
  };
  auto bits = [](float x) { return std::bit_cast<std::uint32_t>(x); };
  expect_product(rounded.read(), [&](float x) { return std::bit_cast<float>((bits(x) + 0x1000u) & ~0x1fffu); });
  expect_product(cut.read(), [&](float x) { return std::bit_cast<float>(bits(x) & ~0x1fffu); });
}

TEST(TensorCore, Tf32RoundsHalvesAwayFromZero) {
  auto rounded = [](float x) { return std::bit_cast<float>(cuda::to_tf32(x)); };
  const float unit = std::ldexp(1.0f, -10);
  EXPECT_EQ(rounded(1 + unit / 2), 1 + unit);
  EXPECT_EQ(rounded(-1 - unit / 2), -1 - unit);
  EXPECT_EQ(rounded(1 + unit * 0.499f), 1);
  EXPECT_TRUE(std::isinf(rounded(INFINITY)));
}

}  // namespace
}  // namespace cald::test
