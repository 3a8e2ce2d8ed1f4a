// AdamW over many tensors in one launch, in the CPU's order of operations, and the norm of all gradients.
//
// Device memory: AdamW reads value, gradient and both moments and writes all but the gradient, 28 bytes a parameter, 20
// with moments in bf16; of a table whose gradient is by rows, as much for those of named rows, 4 bytes less for those
// of rows that moved before, and 8 bytes more a row, which each thread of the row asks for. The norm reads 4 bytes a
// parameter.
#pragma once
#include "kernels/cuda/two_float.cuh"

namespace cald::cuda {

constexpr int kChunk = 4096, kOptimizerThreads = 256;

struct OptimizerSlot {
  float* value;
  void *m, *v;  ///< float or bf16
  const float* grad;
  std::int64_t numel;
  int first_block;  ///< of the launch; a block has `chunk` elements of one slot
  float decay, step_size;
  int chunk = kChunk;  ///< whole rows, where the gradient is by rows
  int columns = 1;
  const int* rows = nullptr;  ///< by rows: see AdamWSlot
  int* moved = nullptr;
  std::uint32_t noise_key = 0;

  /// The gradient of element i; `none` if nothing is to be done for it.
  __device__ float gradient(std::int64_t i, bool& none) const {
    if (!rows) return grad[i];
    const std::int64_t row = i / columns;
    const int at = rows[row];
    if (at < 0) {
      none = decay == 1.0f && !moved[row];  // no thread writes `moved` of a row without a gradient
      return 0.0f;
    }
    if (i % columns == 0) moved[row] = 1;
    return grad[at * std::int64_t{columns} + i % columns];
  }
};

/// The table travels as the kernel's argument, of which there are 4 KB at most.
struct OptimizerSlots {
  static constexpr int kMost = 40;
  int count;
  OptimizerSlot slot[kMost];

  __device__ const OptimizerSlot& of_block(int block) const {
    int i = count - 1;
    while (slot[i].first_block > block) --i;
    return slot[i];
  }
};

/// What all slots share; see AdamW.
struct AdamWFactors {
  float beta1, beta2, rest1, rest2, eps, root_correction, max_norm;
  const float* norm;
};

__device__ __forceinline__ float moment(const float& x) { return x; }
__device__ __forceinline__ float moment(const bf16& x) { return __bfloat162float(x); }
__device__ __forceinline__ void set_moment(float& to, float x, std::uint32_t) { to = x; }
/// Rounded stochastically: the sum's upper half.
__device__ __forceinline__ void set_moment(bf16& to, float x, std::uint32_t noise) {
  to = __float2bfloat16(__uint_as_float((__float_as_uint(x) + (noise & 0xFFFFu)) & 0xFFFF0000u));
}

/// Moment is float or bf16.
template <class Moment>
static __global__ void __launch_bounds__(kOptimizerThreads)
    adamw_update(const __grid_constant__ OptimizerSlots slots, AdamWFactors f) {
  const OptimizerSlot& s = slots.of_block(blockIdx.x);
  const std::int64_t first = std::int64_t{static_cast<int>(blockIdx.x) - s.first_block} * s.chunk;
  const float scale = f.max_norm > 0.0f ? fminf(1.0f, f.max_norm / (*f.norm + 1e-6f)) : 1.0f;
  for (int k = threadIdx.x; k < s.chunk; k += kOptimizerThreads) {
    const std::int64_t i = first + k;
    if (i >= s.numel) return;
    bool none = false;
    const float g = s.gradient(i, none) * scale;
    if (none) continue;
    Moment &m_at = static_cast<Moment*>(s.m)[i], &v_at = static_cast<Moment*>(s.v)[i];
    const float m = __fmaf_rn(f.beta1, moment(m_at), f.rest1 * g);
    const float v = __fmaf_rn(f.beta2, moment(v_at), f.rest2 * (g * g));
    const float change = m / (__fsqrt_rn(v) / f.root_correction + f.eps);
    const std::uint32_t noise = sizeof(Moment) == 2 ? rounding_noise(s.noise_key, static_cast<std::uint32_t>(i)) : 0;
    set_moment(m_at, m, noise);
    set_moment(v_at, v, noise >> 16);
    s.value[i] = __fmaf_rn(-s.step_size, change, s.value[i] * s.decay);
  }
}

/// sums[first + block] = the sum of squares of a chunk.
static __global__ void __launch_bounds__(kOptimizerThreads)
    gradient_squares(const __grid_constant__ OptimizerSlots slots, TwoFloat* sums) {
  CALD_SHARED(TwoFloat, of_warp, [kOptimizerThreads / 32]);
  const OptimizerSlot& s = slots.of_block(blockIdx.x);
  const std::int64_t first = std::int64_t{static_cast<int>(blockIdx.x) - s.first_block} * kChunk;
  TwoFloat sum{};
  for (int k = threadIdx.x; k < kChunk; k += kOptimizerThreads)
    if (first + k < s.numel) sum = add_product(sum, s.grad[first + k], s.grad[first + k]);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kOptimizerThreads / 32; ++w) sum = sum + of_warp[w];
  sums[blockIdx.x] = sum;
}

static __global__ void __launch_bounds__(kSumThreads) norm_of_sums(const TwoFloat* sums, std::int64_t n, float* norm) {
  const TwoFloat sum = block_sum(sums, n);
  if (threadIdx.x == 0) *norm = __fsqrt_rn(sum.value());
}

}  // namespace cald::cuda
