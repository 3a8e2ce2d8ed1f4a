// Kernels with one mistake each; the line of the mistake is a constant beside it. Only the emulator runs them.
#pragma once
#include "kernels/cuda/device.cuh"

namespace cald::test {

constexpr int kFirstBarrierLine = __LINE__ + 4;
constexpr int kSecondBarrierLine = __LINE__ + 5;
static __global__ void divergent_barrier() {
  if (threadIdx.x < 40)
    __syncthreads();
  else
    __syncthreads();
}

constexpr int kLonelyShuffleLine = __LINE__ + 3;
static __global__ void deadlock(int* out) {
  // Lanes 0 to 9 wait for the others, which wait for them.
  if (threadIdx.x < 10) out[threadIdx.x] = __shfl_sync(~0u, threadIdx.x, 0);
  __syncthreads();
}
constexpr int kDeadlockBarrierLine = kLonelyShuffleLine + 1;

constexpr int kDivergentVoteLine = __LINE__ + 4;
static __global__ void divergent_warp(int* out) {
  if (threadIdx.x == 0) {
    const int all = __all_sync(~0u, 1);
    out[0] = all + __any_sync(~0u, 1);
  } else {
    out[threadIdx.x] = __any_sync(~0u, 1);
  }
}

constexpr int kAbsentLaneLine = __LINE__ + 3;
static __global__ void shuffle_from_absent_lane(int* out) {
  // Lane 16 of the second warp does not exist.
  out[threadIdx.x] = __shfl_down_sync(threadIdx.x < 32 ? ~0u : 0xffffu, 1, 1);
}

constexpr int kForeignMaskLine = __LINE__ + 1;
static __global__ void lane_not_in_mask() { __syncwarp(0xffu); }

constexpr int kShortMmaLine = __LINE__ + 4;
static __global__ void mma_without_whole_warp(float* out) {
  float d[4] = {};
  const std::uint32_t a[4] = {}, b[2] = {};
  if (threadIdx.x < 16) cuda::mma_bf16_16x8x16(d, a, b);
  out[threadIdx.x] = d[0];
}

constexpr int kForgottenCopyLine = __LINE__ + 3;
static __global__ void copy_never_waited_for(const float4* x) {
  CALD_SHARED(float4, row, [32]);
  cuda::cp_async16(&row[threadIdx.x], x + threadIdx.x);
  cuda::cp_async_commit();
}

constexpr int kMisalignedCopyLine = __LINE__ + 3;
static __global__ void copy_misaligned(const float* x) {
  CALD_SHARED(float, row, [8]);
  cuda::cp_async16(&row[1], x);
}

constexpr int kCopyOutOfRangeLine = __LINE__ + 3;
static __global__ void copy_out_of_range(const float4* x) {
  CALD_SHARED(float4, row, [4]);
  cuda::cp_async16(&row[threadIdx.x], x + threadIdx.x);
  cuda::cp_async_commit();
  cuda::cp_async_wait<0>();
}

constexpr int kOutOfRangeLine = __LINE__ + 4;
static __global__ void plain_out_of_range(float* x, unsigned n) {
  CALD_DYNAMIC_SHARED(float, dynamic);
  if (n == 0) x[threadIdx.x] = 1;
  if (n != 0) dynamic[threadIdx.x + n] = 1;
}

constexpr int kNullLine = __LINE__ + 1;
static __global__ void write_somewhere(float* x) { *x = 1; }

constexpr int kVectorOutOfRangeLine = __LINE__ + 3;
static __global__ void vector_out_of_range() {
  CALD_DYNAMIC_SHARED(float4, rows);
  cuda::store_vector(rows + threadIdx.x, float4{});
}

constexpr int kMisalignedVectorLine = __LINE__ + 2;
static __global__ void vector_misaligned(const float* x, float2* out) {
  out[threadIdx.x] = cuda::load_vector<float2>(x + threadIdx.x);
}

constexpr int kTooMuchSharedLine = __LINE__ + 3;
static __global__ void too_much_shared(float* out) {
  CALD_SHARED(float, fits, [12 << 10]);
  CALD_SHARED(float, exceeds, [1]);
  out[0] = fits[0] + exceeds[0];
}

/// Sums tiles (tiles, 32) that come by cp.async in two stages. kInFlight 1 is right; 2 does not wait for the tile.
template <int kInFlight>
static __global__ void sum_of_tiles(const float4* x, float* sums, int tiles) {
  CALD_SHARED(float4, tile, [2][32]);
  const int lane = threadIdx.x;
  float sum = 0;
  for (int i = 0; i <= tiles; ++i) {
    if (i < tiles) cuda::cp_async16(&tile[i % 2][lane], x + i * 32 + lane);
    cuda::cp_async_commit();
    if (i == 0) continue;
    cuda::cp_async_wait<kInFlight>();
    __syncwarp();
    sum += tile[(i - 1) % 2][31 - lane].x;
    __syncwarp();
  }
  cuda::cp_async_wait<0>();
  sums[lane] = sum;
}

}  // namespace cald::test
