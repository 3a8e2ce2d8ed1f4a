// Kernels that are right give the right values under every schedule.
#include <cmath>
#include <cstring>
#include <numeric>
#include <set>

#include "tests/emulation/kernels.cuh"
#include "tests/emulation/support.h"

namespace cald::test {
namespace {

int lane_in_segment(int source, int lane, int width) {
  return source >= lane / width * width && source < lane / width * width + width ? source : lane;
}

TEST(Warp, ShufflesAndVotes) {
  with_every_schedule([] {
    const int threads = 48;
    Buffer<int> out(threads * kWarpValues);
    check(cuda::launch(warp_functions, {dim3(1), dim3(threads)}, out.get()));
    const std::vector<int> got = out.read();
    for (int t = 0; t < threads; ++t) {
      const int lane = t % 32;
      const unsigned lanes = t < 32 ? ~0u : 0xffffu;
      const int* o = &got[t * kWarpValues];
      EXPECT_EQ(o[0], (lane / 8 * 8 + 5) * 10);
      EXPECT_EQ(o[1], lane_in_segment(lane - 2, lane, 8));
      EXPECT_EQ(o[2], lane_in_segment(lane + 3, lane, 8));
      EXPECT_EQ(o[3], lane ^ 5);
      EXPECT_EQ(static_cast<unsigned>(o[4]), 0x49249249u & lanes);
      EXPECT_TRUE(o[5] && !o[6] && o[7] && !o[8]);
      EXPECT_EQ(o[9], lane ^ 1);
      EXPECT_EQ(static_cast<unsigned>(o[10]), lane < 8 ? 0xaau : lanes & ~0xffu);
      EXPECT_EQ(o[11], lane);
    }
  });
}

TEST(Block, BarriersWithPredicates) {
  with_every_schedule([] {
    Buffer<int> out(64 * 3);
    check(cuda::launch(barrier_functions, {dim3(1), dim3(64)}, out.get()));
    const std::vector<int> got = out.read();
    for (int t = 0; t < 64; ++t) {
      EXPECT_EQ(got[t * 3 + 0], 0);
      EXPECT_EQ(got[t * 3 + 1], 32 * 4 + 2);
      EXPECT_EQ(got[t * 3 + 2], 64 * 4 + 2 + 1);
    }
  });
}

TEST(Block, SumThroughStaticAndDynamicSharedMemory) {
  std::vector<float> x(1000);
  std::iota(x.begin(), x.end(), 1.0f);
  Buffer<float> in(x);
  with_every_schedule([&] {
    Buffer<float> sum(1);
    check(cuda::launch(block_sum, {dim3(1), dim3(128), 128 * sizeof(float)}, in.get(), 1000, sum.get()));
    EXPECT_EQ(sum.read()[0], 500500.0f);
  });
}

TEST(Block, ThreadsThatLeftAreNotWaitedFor) {
  with_every_schedule([] {
    Buffer<float> out(40);
    check(cuda::launch(early_exit, {dim3(1), dim3(64)}, out.get(), 40));
    const std::vector<float> got = out.read();
    for (int i = 0; i < 40; ++i) EXPECT_EQ(got[i], 39 - i);
  });
}

TEST(Grid, AtomicsAcrossBlocks) {
  const int n = 200;
  std::vector<int> x(n);
  for (int i = 0; i < n; ++i) x[i] = (i * 37 + 11) % 1000;
  Buffer<int> in(x);
  with_every_schedule([&] {
    Buffer<int> histogram(std::vector<int>(8, 0)), extremes(std::vector<int>{1 << 30, -1}),
        slots(std::vector<int>(n, -1));
    Buffer<float> real(std::vector<float>{0});
    check(cuda::launch(atomics, {dim3(3), dim3(40)}, in.get(), n, histogram.get(), real.get(), extremes.get(),
                       slots.get()));
    std::vector<int> expected(8, 0);
    for (int v : x) ++expected[v & 7];
    EXPECT_EQ(histogram.read(), expected);
    EXPECT_EQ(real.read()[0], n / 2);
    EXPECT_EQ(extremes.read()[0], *std::min_element(x.begin(), x.end()));
    EXPECT_EQ(extremes.read()[1], *std::max_element(x.begin(), x.end()));
    const std::vector<int> filled = slots.read();
    EXPECT_EQ(std::multiset<int>(filled.begin(), filled.end()), std::multiset<int>(x.begin(), x.end()));
  });
}

TEST(Grid, BlocksComeInTheScheduleOrder) {
  std::set<std::vector<int>> orders;
  with_every_schedule([&] {
    Buffer<int> next(std::vector<int>{0}), order(12);
    check(cuda::launch(block_order, {dim3(4, 3), dim3(1)}, next.get(), order.get()));
    std::vector<int> got = order.read();
    const std::uint64_t seed = emulation::schedule_seed();
    EXPECT_TRUE(seed != 0 || std::is_sorted(got.begin(), got.end()));
    EXPECT_TRUE(seed != 1 || std::is_sorted(got.rbegin(), got.rend()));
    orders.insert(got);
    std::sort(got.begin(), got.end());
    for (int i = 0; i < 12; ++i) EXPECT_EQ(got[i], i);
  });
  EXPECT_GE(orders.size(), 6u);
}

TEST(Memory, FreshMemoryIsNan) {
  Buffer<float> device(4);
  Buffer<float> out(std::vector<float>(9, 0.0f));
  check(cuda::launch(read_fresh, {dim3(3), dim3(1), 16}, device.get(), out.get()));
  for (float v : out.read()) EXPECT_TRUE(std::isnan(v));
}

TEST(Memory, AsyncCopiesWithZeroFill) {
  std::vector<float4> rows(32);
  for (int i = 0; i < 32; ++i) rows[i] = make_float4(i, i + 0.25f, i + 0.5f, i + 0.75f);
  Buffer<float4> from(rows);
  with_every_schedule([&] {
    Buffer<float4> to(32);
    check(cuda::launch(copy_rows, {dim3(1), dim3(32)}, from.get(), to.get(), 20));
    const std::vector<float4> got = to.read();
    for (int i = 0; i < 32; ++i) {
      EXPECT_EQ(got[31 - i].x, i < 20 ? i : 0);
      EXPECT_EQ(got[31 - i].w, i < 20 ? i + 0.75f : 0);
    }
  });
}

TEST(Launch, ArgumentsAreCopiedAndConverted) {
  Buffer<float> x(std::vector<float>(24, 2.0f));
  check(cuda::launch(affine, {dim3(1), dim3(2, 3, 4)}, x.get(), Affine{3, 0.5}, std::int64_t{24}));
  EXPECT_EQ(x.read(), std::vector<float>(24, 6.5f));
}

TEST(Launch, RefusesWhatTheHardwareRefuses) {
  float* none = nullptr;
  EXPECT_EQ(cuda::launch(early_exit, {dim3(1), dim3(1025)}, none, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cuda::launch(early_exit, {dim3(0), dim3(1)}, none, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cuda::launch(early_exit, {dim3(1, 70000), dim3(1)}, none, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cuda::launch(early_exit, {dim3(1), dim3(1), 300 << 10}, none, 0), cudaErrorInvalidValue);
  EXPECT_EQ(cuda::launch(early_exit, {dim3(1), dim3(1), 100 << 10}, none, 0), cudaErrorInvalidValue);  // the last stays
  cudaGetLastError();
  check(cuda::launch(early_exit, {dim3(1), dim3(1), 100 << 10}, none, 0));
}

}  // namespace
}  // namespace cald::test
