// What only the instrumented build sees: races, plain accesses out of range, memory traffic.
#include "kernels/cuda/emulation/traffic.h"
#include "tests/emulation/broken_kernels.cuh"
#include "tests/emulation/support.h"

namespace cald::test {
namespace {

std::string here(int number) { return line("race_instrumented.cpp", number); }

/// Reverses the block's values twice through one buffer. Each flag keeps one of the barriers that this needs.
constexpr int kReverseWriteLine = __LINE__ + 6;
constexpr int kReverseReadLine = __LINE__ + 7;
template <bool kAfterWrite, bool kBeforeReuse>
__global__ void reverse(float* x) {
  CALD_SHARED(float, buffer, [128]);
  for (int round = 0; round < 2; ++round) {
    buffer[threadIdx.x] = x[threadIdx.x];
    if (kAfterWrite) __syncthreads();
    x[threadIdx.x] = buffer[blockDim.x - 1 - threadIdx.x];
    if (kBeforeReuse) __syncthreads();
  }
}

TEST(Race, MissingBarriers) {
  with_every_schedule([] {
    Buffer<float> x(128);
    check(cuda::launch(reverse<true, true>, {dim3(1), dim3(128)}, x.get()));
    const std::vector<std::string> places = {here(kReverseWriteLine), here(kReverseReadLine), "of shared memory"};
    expect_failure(cuda::launch(reverse<false, true>, {dim3(1), dim3(128)}, x.get()), places);
    expect_failure(cuda::launch(reverse<true, false>, {dim3(1), dim3(128)}, x.get()), places);
  });
}

/// A neighbour's value through shared memory within a warp; a warp's meeting orders only its own lanes.
enum class Meet { none, warp, block };
constexpr int kNeighbourLine = __LINE__ + 7;
template <Meet kMeet, int kDistance>
__global__ void neighbour(float* out) {
  CALD_SHARED(float, values, [64]);
  values[threadIdx.x] = 1;
  if (kMeet == Meet::warp) __syncwarp();
  if (kMeet == Meet::block) __syncthreads();
  out[threadIdx.x] = values[threadIdx.x ^ kDistance];
}

TEST(Race, WarpMeetingsOrderTheirLanesOnly) {
  with_every_schedule([] {
    Buffer<float> out(64);
    const cuda::Launch shape{dim3(1), dim3(64)};
    check(cuda::launch(neighbour<Meet::warp, 1>, shape, out.get()));
    check(cuda::launch(neighbour<Meet::block, 32>, shape, out.get()));
    const std::vector<std::string> place = {"broken", here(kNeighbourLine - 3), here(kNeighbourLine)};
    const std::vector<std::string> places(place.begin() + 1, place.end());
    expect_failure(cuda::launch(neighbour<Meet::none, 1>, shape, out.get()), places);
    expect_failure(cuda::launch(neighbour<Meet::warp, 32>, shape, out.get()), places);
  });
}

/// Lanes learn of each other through a third: 0 writes, meets 1; 1 meets 2; 2 reads.
__global__ void chain(float* out, bool complete) {
  CALD_SHARED(float, value, [1]);
  const unsigned lane = threadIdx.x;
  if (lane == 0) value[0] = 7;
  if (lane <= 1) __syncwarp(3);
  if (lane == 1 || lane == 2) __syncwarp(complete ? 6 : 1u << lane);
  if (lane == 2) out[0] = value[0];
}

TEST(Race, OrderIsTransitive) {
  with_every_schedule([] {
    Buffer<float> out(1);
    check(cuda::launch(chain, {dim3(1), dim3(3)}, out.get(), true));
    expect_failure(cuda::launch(chain, {dim3(1), dim3(3)}, out.get(), false), {"race", "by thread"});
  });
}

/// A meeting orders what came before it, not what comes after.
__global__ void write_after_meeting(float* out) {
  CALD_SHARED(float, value, [1]);
  __syncwarp();
  if (threadIdx.x == 0) value[0] = 7;
  if (threadIdx.x == 1) out[0] = value[0];
}

/// Thread 40 overwrites what it and another warp have read.
__global__ void write_after_two_readers(float* x, float* out) {
  out[threadIdx.x] = *x;
  if (threadIdx.x == 40) *x = 1;
}

TEST(Race, WhatComesAfterTheMeeting) {
  with_every_schedule([] {
    Buffer<float> out(41), x(1);
    expect_failure(cuda::launch(write_after_meeting, {dim3(1), dim3(32)}, out.get()), {"race"});
    expect_failure(cuda::launch(write_after_two_readers, {dim3(1), dim3(41)}, x.get(), out.get()),
                   {"race", "by thread"});
  });
}

__global__ void blocks_share(int* x, bool atomically) {
  if (atomically)
    atomicAdd(x, 1);
  else
    *x = 1;
}

/// Neighbouring bytes and bf16 of different threads are no race.
__global__ void neighbouring_bytes(unsigned char* bytes, std::uint16_t* halves) {
  bytes[threadIdx.x] = 1;
  halves[threadIdx.x] = 2;
}

TEST(Race, DeviceMemory) {
  Buffer<int> x(1);
  check(cuda::launch(blocks_share, {dim3(4), dim3(1)}, x.get(), true));
  check(cuda::launch(blocks_share, {dim3(1), dim3(1)}, x.get(), false));  // a later launch is ordered
  expect_failure(cuda::launch(blocks_share, {dim3(4), dim3(1)}, x.get(), false),
                 {"race: write of device memory", "of another block"});
  Buffer<unsigned char> bytes(64);
  Buffer<std::uint16_t> halves(64);
  check(cuda::launch(neighbouring_bytes, {dim3(1), dim3(64)}, bytes.get(), halves.get()));
}

/// The last block to arrive adds up what the others have left in `partial`.
template <bool kFence>
__global__ void last_block_sums(float* partial, int* arrived, float* sum) {
  CALD_SHARED(int, last, [1]);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = 1;
    if (kFence) __threadfence();
    last[0] = atomicAdd(arrived, 1) == static_cast<int>(gridDim.x) - 1;
  }
  __syncthreads();
  if (!last[0]) return;
  if (threadIdx.x < gridDim.x) atomicAdd(sum, partial[threadIdx.x]);
}

TEST(Race, FencesOrderBlocks) {
  with_every_schedule([] {
    Buffer<float> partial(5), sum(std::vector<float>{0});
    Buffer<int> arrived(std::vector<int>{0, 0});
    check(cuda::launch(last_block_sums<true>, {dim3(5), dim3(8)}, partial.get(), arrived.get(), sum.get()));
    EXPECT_EQ(sum.read()[0], 5);
    expect_failure(
        cuda::launch(last_block_sums<false>, {dim3(5), dim3(8)}, partial.get(), arrived.get() + 1, sum.get()),
        {"race: read of device memory", "of another block"});
  });
}

TEST(Race, MissingWaitForAnAsyncCopy) {
  with_every_schedule([] {
    Buffer<float4> x(5 * 32);
    Buffer<float> sums(32);
    check(cuda::launch(sum_of_tiles<1>, {dim3(1), dim3(32)}, x.get(), sums.get(), 5));
    expect_failure(cuda::launch(sum_of_tiles<2>, {dim3(1), dim3(32)}, x.get(), sums.get(), 5),
                   {"broken_kernels.cuh:", "while the cp.async at ", "no cp.async wait"});
  });
}

/// The wait orders a thread's own copies only: the others need a barrier after it.
__global__ void copy_without_barrier(const float4* x, float* out) {
  CALD_SHARED(float4, row, [32]);
  cuda::cp_async16(&row[threadIdx.x], x + threadIdx.x);
  cuda::cp_async_commit();
  cuda::cp_async_wait<0>();
  out[threadIdx.x] = row[31 - threadIdx.x].x;
}

TEST(Race, MissingBarrierAfterTheWait) {
  with_every_schedule([] {
    Buffer<float4> x(32);
    Buffer<float> out(32);
    expect_failure(cuda::launch(copy_without_barrier, {dim3(1), dim3(32)}, x.get(), out.get()), {"race"});
  });
}

TEST(OutOfRange, PlainAccesses) {
  Buffer<float> x(8);
  expect_failure(cuda::launch(plain_out_of_range, {dim3(1), dim3(9), 4}, x.get(), 0u),
                 {line("broken_kernels.cuh", kOutOfRangeLine - 1), "outside device memory", "thread (8,0,0)"});
  expect_failure(cuda::launch(plain_out_of_range, {dim3(1), dim3(1), 4}, x.get(), 1u),
                 {line("broken_kernels.cuh", kOutOfRangeLine), "outside the block's shared memory"});
}

/// Reads x and writes y with a stride in elements; a column of a shared tile with rows of `kPitch` words.
template <int kPitch>
__global__ void strided(const float* x, float* y, int stride) {
  CALD_SHARED(float, tile, [32 * kPitch]);
  tile[threadIdx.x * kPitch] = x[threadIdx.x * stride];
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x * kPitch];
}

emulation::KernelTraffic traffic_of_last() { return emulation::kernel_traffic().back(); }

TEST(Traffic, SectorsAndBankConflicts) {
  Buffer<float> x(32 * 8 * 4), y(32);
  emulation::clear_kernel_traffic();
  check(cuda::launch(strided<33>, {dim3(1), dim3(32)}, x.get(), y.get(), 1));
  emulation::KernelTraffic t = traffic_of_last();
  EXPECT_EQ(t.loaded, 128u);
  EXPECT_EQ(t.stored, 128u);
  EXPECT_EQ(t.sectors, 4u + 4u);
  EXPECT_EQ(t.shared_requests, 2u);
  EXPECT_EQ(t.bank_conflicts, 0u);

  check(cuda::launch(strided<32>, {dim3(1), dim3(32)}, x.get(), y.get(), 8));
  t = traffic_of_last();
  EXPECT_EQ(t.sectors, 32u + 4u);
  EXPECT_EQ(t.shared_requests, 2u);
  EXPECT_EQ(t.bank_conflicts, 62u);

  check(cuda::launch(strided<2>, {dim3(1), dim3(16)}, x.get(), y.get(), 1));
  check(cuda::launch(strided<2>, {dim3(1), dim3(32)}, x.get(), y.get(), 1));
  t = traffic_of_last();
  EXPECT_EQ(t.launches, 2u);
  EXPECT_EQ(t.blocks, 2u);
  EXPECT_EQ(t.loaded, 64u + 128u);
  EXPECT_EQ(t.shared_requests, 4u);
  EXPECT_EQ(t.bank_conflicts, 2u);
  EXPECT_EQ(emulation::kernel_traffic().size(), 3u);
  EXPECT_NE(emulation::traffic_table().find("strided<33>"), std::string::npos) << emulation::traffic_table();
}

/// 16 bytes a lane: four wavefronts of quarter warps, without conflicts.
__global__ void copy_vectors(const float4* x, float4* y) {
  CALD_SHARED(float4, rows, [32]);
  cuda::store_vector(&rows[threadIdx.x], cuda::load_vector<float4>(x + threadIdx.x));
  __syncwarp();
  cuda::store_vector(y + threadIdx.x, cuda::load_vector<float4>(&rows[31 - threadIdx.x]));
}

TEST(Traffic, VectorsAndDivergence) {
  with_every_schedule([] {
    Buffer<float4> x(32), y(32);
    emulation::clear_kernel_traffic();
    check(cuda::launch(copy_vectors, {dim3(1), dim3(32)}, x.get(), y.get()));
    const emulation::KernelTraffic t = traffic_of_last();
    EXPECT_EQ(t.loaded, 512u);
    EXPECT_EQ(t.sectors, 16u + 16u);
    EXPECT_EQ(t.shared_requests, 4u + 4u);
    EXPECT_EQ(t.bank_conflicts, 0u);
  });
}

/// All lanes read one word, a wavefront; then either half of the warp its own, by another instruction.
__global__ void broadcast_and_branch(float* y) {
  CALD_SHARED(float, tile, [64]);
  tile[threadIdx.x] = 1;
  tile[threadIdx.x + 32] = 2;
  __syncwarp();
  float sum = tile[5];
  if (threadIdx.x < 16)
    sum += tile[threadIdx.x];
  else
    sum -= tile[threadIdx.x + 1];
  y[threadIdx.x] = sum;
}

TEST(Traffic, BroadcastAndBranch) {
  with_every_schedule([] {
    Buffer<float> y(32);
    emulation::clear_kernel_traffic();
    check(cuda::launch(broadcast_and_branch, {dim3(1), dim3(32)}, y.get()));
    EXPECT_EQ(traffic_of_last().shared_requests, 2u + 1u + 2u);
    EXPECT_EQ(traffic_of_last().bank_conflicts, 0u);
  });
}

}  // namespace
}  // namespace cald::test
