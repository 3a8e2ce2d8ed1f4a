// A sum in two floats, with about 48 bits: what the CPU sums in f64. GPUs for graphics have few units for f64, and none
// of these kernels uses them.
#pragma once
#include "kernels/cuda/device.cuh"

namespace cald::cuda {

struct TwoFloat {
  float high, low;  // no initialisers: shared arrays hold it

  __device__ float value() const { return high + low; }
};

/// x + y with the rounding error of the sum kept (Knuth's TwoSum).
__device__ __forceinline__ TwoFloat operator+(TwoFloat x, float y) {
  const float sum = __fadd_rn(x.high, y), part = __fadd_rn(sum, -x.high);
  const float error = __fadd_rn(__fadd_rn(x.high, -__fadd_rn(sum, -part)), __fadd_rn(y, -part));
  return {sum, __fadd_rn(x.low, error)};
}
__device__ __forceinline__ TwoFloat operator+(TwoFloat x, TwoFloat y) {
  const TwoFloat sum = x + y.high;
  return {sum.high, __fadd_rn(sum.low, y.low)};
}

/// x + a b, with the product's rounding error too.
__device__ __forceinline__ TwoFloat add_product(TwoFloat x, float a, float b) {
  const float product = __fmul_rn(a, b);
  return x + TwoFloat{product, __fmaf_rn(a, b, -product)};
}

/// Summed over the lanes of a warp, in a fixed order; every lane gets it.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int lanes = 16; lanes; lanes /= 2) x += __shfl_xor_sync(~0u, x, lanes);
  return x;
}
/// Lane 0 gets it.
__device__ __forceinline__ TwoFloat warp_sum(TwoFloat x) {
#pragma unroll
  for (int lanes = 16; lanes; lanes /= 2)
    x = x + TwoFloat{__shfl_down_sync(~0u, x.high, lanes), __shfl_down_sync(~0u, x.low, lanes)};
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int lanes = 16; lanes; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, lanes));
  return x;
}

/// The sum of n pairs, in a fixed order, by one block of kSumThreads threads; thread 0 gets it.
constexpr int kSumThreads = 256;
__device__ __forceinline__ TwoFloat block_sum(const TwoFloat* values, std::int64_t n) {
  CALD_SHARED(TwoFloat, of_warp, [kSumThreads / 32]);
  TwoFloat sum{};
  for (std::int64_t i = threadIdx.x; i < n; i += kSumThreads) sum = sum + values[i];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0)
    for (int w = 1; w < kSumThreads / 32; ++w) sum = sum + of_warp[w];
  return sum;
}

}  // namespace cald::cuda
