// Kernels that are wrong fail with the place and the reason.
#include <cmath>

#include "tests/emulation/broken_kernels.cuh"
#include "tests/emulation/support.h"

namespace cald::test {
namespace {

std::string here(int number) { return line("broken_kernels.cuh", number); }

TEST(Failures, DivergentBarrier) {
  with_every_schedule([] {
    expect_failure(cuda::launch(divergent_barrier, {dim3(2), dim3(64)}),
                   {"divergent barrier", here(kFirstBarrierLine), here(kSecondBarrierLine), "block (", "thread ("});
  });
}

TEST(Failures, Deadlock) {
  with_every_schedule([] {
    Buffer<int> out(64);
    expect_failure(cuda::launch(deadlock, {dim3(1), dim3(64)}, out.get()),
                   {"deadlock in block (0,0,0)", "10 threads wait at ", here(kLonelyShuffleLine) + " in __shfl_sync",
                    "54 threads wait at ", here(kDeadlockBarrierLine) + " in __syncthreads", "0 threads have ended"});
  });
}

TEST(Failures, LanesOfOneMaskAtDifferentVotes) {
  with_every_schedule([] {
    Buffer<int> out(32);
    expect_failure(cuda::launch(divergent_warp, {dim3(1), dim3(32)}, out.get()),
                   {"divergent warp", here(kDivergentVoteLine - 1), "__all_sync", "__any_sync"});
  });
}

TEST(Failures, ShuffleFromAbsentLane) {
  with_every_schedule([] {
    Buffer<int> out(48);
    expect_failure(cuda::launch(shuffle_from_absent_lane, {dim3(1), dim3(48)}, out.get()),
                   {here(kAbsentLaneLine), "lane 15 reads from lane 16"});
  });
}

TEST(Failures, WarpMasks) {
  expect_failure(cuda::launch(lane_not_in_mask, {dim3(1), dim3(32)}), {here(kForeignMaskLine), "not in its own mask"});
  Buffer<float> out(32);
  expect_failure(cuda::launch(mma_without_whole_warp, {dim3(1), dim3(32)}, out.get()),
                 {here(kShortMmaLine), "mma.m16n8k16 needs all 32 lanes"});
}

TEST(Failures, AsyncCopies) {
  with_every_schedule([] {
    Buffer<float4> x(32);
    expect_failure(cuda::launch(copy_never_waited_for, {dim3(1), dim3(32)}, x.get()),
                   {here(kForgottenCopyLine), "without having waited"});
    expect_failure(cuda::launch(copy_misaligned, {dim3(1), dim3(1)}, &x.get()->x),
                   {here(kMisalignedCopyLine), "not aligned to 16 bytes"});
    expect_failure(cuda::launch(copy_out_of_range, {dim3(1), dim3(5)}, x.get()),
                   {here(kCopyOutOfRangeLine), "outside the block's shared memory", "thread (4,0,0)"});
    expect_failure(cuda::launch(copy_out_of_range, {dim3(1), dim3(1)}, x.get() + 32),
                   {here(kCopyOutOfRangeLine), "outside device memory"});
  });
}

TEST(Failures, VectorsOutOfRangeAndMisaligned) {
  expect_failure(cuda::launch(vector_out_of_range, {dim3(1), dim3(5), 4 * sizeof(float4)}),
                 {here(kVectorOutOfRangeLine), "outside the block's shared memory", "thread (4,0,0)"});
  Buffer<float> x(9);
  Buffer<float2> out(8);
  expect_failure(cuda::launch(vector_misaligned, {dim3(1), dim3(8)}, x.get(), out.get()),
                 {here(kMisalignedVectorLine), "8 bytes is not aligned", "thread (1,0,0)"});
}

TEST(Failures, TooMuchStaticSharedMemory) {
  Buffer<float> out(1);
  expect_failure(cuda::launch(too_much_shared, {dim3(1), dim3(1)}, out.get()), {here(kTooMuchSharedLine), "48 KiB"});
}

TEST(Failures, AreReportedWhereTheStreamIsWaitedFor) {
  cudaStream_t stream;
  check(cudaStreamCreate(&stream));
  check(cuda::launch(lane_not_in_mask, {dim3(1), dim3(32), 0, stream}));
  expect_failure(cudaStreamSynchronize(stream), {"not in its own mask"});
  check(cudaStreamSynchronize(stream));
  check(cudaStreamDestroy(stream));
}

#ifdef __SANITIZE_ADDRESS__
TEST(Failures, AddressSanitizerSeesPlainAccessesOutOfRange) {
  Buffer<float> x(8);
  const std::string device = "plain_out_of_range.*" + here(kOutOfRangeLine - 1);
  const std::string shared = "plain_out_of_range.*" + here(kOutOfRangeLine);
  EXPECT_DEATH(cuda::launch(plain_out_of_range, {dim3(1), dim3(9), 4}, x.get(), 0u), device);
  EXPECT_DEATH(cuda::launch(plain_out_of_range, {dim3(1), dim3(1), 4}, x.get(), 1u), shared);
}
#else
TEST(Failures, UnmappedAddresses) {
  for (int again = 0; again < 3; ++again) {
    expect_failure(cuda::launch(write_somewhere, {dim3(1), dim3(1)}, nullptr),
                   {here(kNullLine), "address 0, which is not mapped"});
  }
}
#endif

#ifndef __SANITIZE_THREAD__  // the instrumented build stops at the mistake
// Without instrumentation a wait that comes too late shows in the values, when the schedule lands copies late.
TEST(Failures, MissingWaitShowsInTheValues) {
  const int tiles = 5;
  std::vector<float4> x(tiles * 32);
  for (std::size_t i = 0; i < x.size(); ++i) x[i].x = static_cast<float>(i);
  Buffer<float4> in(x);
  int right = 0, wrong = 0, early_and_right = 0;
  with_every_schedule([&] {
    Buffer<float> good(32), bad(32);
    check(cuda::launch(sum_of_tiles<1>, {dim3(1), dim3(32)}, in.get(), good.get(), tiles));
    check(cuda::launch(sum_of_tiles<2>, {dim3(1), dim3(32)}, in.get(), bad.get(), tiles));
    std::vector<float> expected(32, 0.0f);
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < tiles; ++i) expected[lane] += x[i * 32 + 31 - lane].x;
    right += good.read() == expected;
    wrong += bad.read() != expected;
    early_and_right += emulation::schedule_seed() == 1 && bad.read() == expected;
  });
  EXPECT_EQ(right, 8);
  EXPECT_EQ(wrong, 7);
  EXPECT_EQ(early_and_right, 1);
}
#endif

}  // namespace
}  // namespace cald::test
