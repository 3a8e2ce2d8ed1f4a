// Correct kernels, one for each feature of the device language. g++ runs them, nvcc compiles them (all_kernels.cu).
#pragma once
#include "kernels/cuda/device.cuh"

namespace cald::test {

constexpr int kWarpValues = 12;

/// out (threads, kWarpValues): every shuffle and vote. The block may end in a partial warp.
static __global__ void warp_functions(int* out) {
  const int lane = threadIdx.x % 32;
  const unsigned mask = threadIdx.x / 32 == blockDim.x / 32 ? (1u << blockDim.x % 32) - 1 : ~0u;
  int* o = out + threadIdx.x * kWarpValues;
  o[0] = __shfl_sync(mask, lane * 10, 5, 8);
  o[1] = __shfl_up_sync(mask, lane, 2, 8);
  o[2] = __shfl_down_sync(mask, lane, 3, 8);
  o[3] = __shfl_xor_sync(mask, lane, 5);
  o[4] = static_cast<int>(__ballot_sync(mask, lane % 3 == 0));
  o[5] = __any_sync(mask, lane == 7);
  o[6] = __any_sync(mask, lane == 40);
  o[7] = __all_sync(mask, lane < 32);
  o[8] = __all_sync(mask, lane < 7);
  o[9] = static_cast<int>(__shfl_xor_sync(mask, lane * 0.5, 1) * 2);
  // Two halves of a warp meet at different places at the same time.
  if (lane < 8)
    o[10] = static_cast<int>(__ballot_sync(0xffu, lane % 2));
  else
    o[10] = static_cast<int>(__ballot_sync(mask & ~0xffu, 1));
  __syncwarp(mask);
  o[11] = lane;
}

/// out (threads, 3): how many, whether any, whether all threads have a predicate; by rounds of the loop.
static __global__ void barrier_functions(int* out) {
  for (int round = 0; round < 3; ++round) {
    const int predicate = static_cast<int>(threadIdx.x) < round * static_cast<int>(blockDim.x) / 2;
    const int count = __syncthreads_count(predicate);
    const int any = __syncthreads_or(predicate);
    const int all = __syncthreads_and(predicate);
    out[threadIdx.x * 3 + round] = count * 4 + any * 2 + all;
  }
}

/// Sums x (n) by one block: a tree over dynamic shared memory, one static array for the result.
static __global__ void block_sum(const float* x, int n, float* sum) {
  CALD_DYNAMIC_SHARED(float, partial);
  CALD_SHARED(float, total, [1]);
  float mine = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) mine += x[i];
  partial[threadIdx.x] = mine;
  __syncthreads();
  for (int half = blockDim.x / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) total[0] = partial[0];
  __syncthreads();
  if (threadIdx.x == blockDim.x - 1) *sum = total[0];
}

/// Threads from `n` on leave before the barrier.
static __global__ void early_exit(float* out, int n) {
  CALD_SHARED(float, values, [64]);
  if (static_cast<int>(threadIdx.x) >= n) return;
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = values[n - 1 - threadIdx.x];
}

/// histogram (8), real (1), extremes (2), slots (threads of the grid): all atomics.
static __global__ void atomics(const int* x, int n, int* histogram, float* real, int* extremes, int* slots) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    atomicAdd(&histogram[x[i] & 7], 1);
    atomicAdd(real, 0.5f);
    atomicMin(&extremes[0], x[i]);
    atomicMax(&extremes[1], x[i]);
    int slot = i % 4;  // the first free slot from here
    while (atomicCAS(&slots[slot], -1, x[i]) != -1) slot = (slot + 1) % n;
  }
}

/// c (m, n, f32) = a (m, k, bf16) b (k, n, bf16), row-major; m, n multiples of 16, k of 16. A warp for each 16x16 tile:
/// cp.async in two stages, a by ldmatrix, b transposed on its way to the registers.
static __global__ void matmul_bf16(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int n, int k) {
  CALD_SHARED(__nv_bfloat16, tiles, [2][2][16 * 24]);  // rows of 24 elements: no bank conflicts
  const int lane = threadIdx.x, row = blockIdx.y * 16, column = blockIdx.x * 16;
  auto load = [&](int stage, int k0) {
    const int r = lane / 2, part = lane % 2 * 8;
    cuda::cp_async16(&tiles[stage][0][r * 24 + part], a + (row + r) * k + k0 + part);
    cuda::cp_async16(&tiles[stage][1][r * 24 + part], b + (k0 + r) * n + column + part);
  };
  float sums[2][4] = {};
  load(0, 0);
  cuda::cp_async_commit();
  for (int k0 = 0, stage = 0; k0 < k; k0 += 16, stage ^= 1) {
    if (k0 + 16 < k) load(stage ^ 1, k0 + 16);
    cuda::cp_async_commit();
    cuda::cp_async_wait<1>();
    __syncwarp();
    std::uint32_t left[4], right[4];
    const int at = lane % 16 * 24 + lane / 16 * 8;
    cuda::ldmatrix<4>(left, &tiles[stage][0][at]);
    cuda::ldmatrix<4, true>(right, &tiles[stage][1][at]);
    const std::uint32_t first[2] = {right[0], right[1]}, second[2] = {right[2], right[3]};
    cuda::mma_bf16_16x8x16(sums[0], left, first);
    cuda::mma_bf16_16x8x16(sums[1], left, second);
    __syncwarp();  // the stage is overwritten next
  }
  for (int tile = 0; tile < 2; ++tile)
    for (int i = 0; i < 4; ++i)
      c[(row + lane / 4 + i / 2 * 8) * n + column + tile * 8 + lane % 4 * 2 + i % 2] = sums[tile][i];
}

/// c (16, 8) = a (16, 8) b (8, 8) by one warp in tf32; not rounded, the operands lose the bits that tf32 lacks.
template <bool kRounded>
static __global__ void matmul_tf32(const float* a, const float* b, float* c) {
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  auto operand = [](float x) { return kRounded ? cuda::to_tf32(x) : __float_as_uint(x); };
  std::uint32_t left[4], right[2];
  for (int i = 0; i < 4; ++i) left[i] = operand(a[(g + i % 2 * 8) * 8 + t + i / 2 * 4]);
  for (int i = 0; i < 2; ++i) right[i] = operand(b[(t + i * 4) * 8 + g]);
  float sums[4] = {};
  cuda::mma_tf32_16x8x8(sums, left, right);
  for (int i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = sums[i];
}

/// out (32, kCount) words from `tiles` (kCount 8x8 tiles of 16-bit numbers).
template <int kCount, bool kTransposed>
static __global__ void load_tiles(const std::uint16_t* tiles, std::uint32_t* out) {
  CALD_SHARED(std::uint16_t, rows, [32][8]);
  for (int i = threadIdx.x; i < kCount * 64; i += 32) rows[i / 8][i % 8] = tiles[i];
  __syncwarp();
  std::uint32_t r[kCount];
  cuda::ldmatrix<kCount, kTransposed>(r, rows[threadIdx.x % (kCount * 8)]);
  for (int i = 0; i < kCount; ++i) out[threadIdx.x * kCount + i] = r[i];
}

/// Copies 32 rows of 16 bytes; rows from `valid` on become zeros.
static __global__ void copy_rows(const float4* from, float4* to, int valid) {
  CALD_SHARED(float4, rows, [32]);
  const int i = threadIdx.x;
  cuda::cp_async16(&rows[i], from + (i < valid ? i : 0), i < valid);
  cuda::cp_async_commit();
  cuda::cp_async_wait<0>();
  __syncwarp();
  cuda::store_vector(to + i, cuda::load_vector<float4>(&rows[31 - i]));
}

/// y = a x + y, elementwise.
static __global__ void axpy(float a, const float* x, float* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] += a * x[i];
}

struct Affine {
  float scale;
  double shift;
};
static __global__ void affine(float* x, Affine f, int n) {
  for (int i = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); i < n; i += 24)
    x[i] = static_cast<float>(f.scale * x[i] + f.shift);
}

/// out (blocks, 3): what fresh shared and device memory hold.
static __global__ void read_fresh(const float* device, float* out) {
  CALD_SHARED(float, values, [4]);
  CALD_DYNAMIC_SHARED(float, dynamic);
  out[blockIdx.x * 3] = values[threadIdx.x];
  out[blockIdx.x * 3 + 1] = dynamic[threadIdx.x];
  out[blockIdx.x * 3 + 2] = device[threadIdx.x];
  values[threadIdx.x] = dynamic[threadIdx.x] = 1;  // a later block finds NaN again
}

/// Order in which blocks come.
static __global__ void block_order(int* next, int* order) {
  order[atomicAdd(next, 1)] = blockIdx.x + gridDim.x * blockIdx.y;
}

}  // namespace cald::test
