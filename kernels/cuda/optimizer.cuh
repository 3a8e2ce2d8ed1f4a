// AdamW over many tensors in one launch, in the CPU's order of operations, and the norm of all gradients.
//
// Device memory: AdamW reads value, gradient and both moments and writes all but the gradient, 28 bytes a parameter, 20
// with moments in bf16; of a table whose gradient is by rows, as much for those of named rows, 4 bytes less for those
// of rows that moved before, and 8 bytes more a row, which each thread of the row asks for; of another table 4 bytes
// more a row. The norm reads 4 bytes a parameter. A thread moves kVector neighbours at a time where they lie at aligned
// addresses.
#pragma once
#include "kernels/cuda/two_float.cuh"
#include "kernels/cuda/vectors.cuh"

namespace cald::cuda {

constexpr int kChunk = 4096, kOptimizerThreads = 256, kVector = kVectorOf<float>;

struct OptimizerSlot {
  float* value;
  void *m, *v;  ///< float or bf16
  const float* grad;
  std::int64_t numel;
  int first_block;  ///< of the launch; a block has `chunk` elements of one slot
  float decay, step_size;
  int chunk = kChunk;         ///< whole rows, where the gradient is by rows
  int columns = 1;            ///< of a table
  const int* rows = nullptr;  ///< by rows: see AdamWSlot
  int* moved = nullptr;
  std::uint32_t noise_key = 0;
  bool vectors = false;  ///< all tensors begin at aligned addresses, and rows, where there are some, are whole vectors

  /// The gradients of N elements from i on, of one row; `none` if nothing is to be done for them.
  template <int N>
  __device__ Elements<float, N> gradient(std::int64_t i, bool& none) const {
    if (!rows) return load_elements<N>(grad + i);
    const std::int64_t row = i / columns;
    const int at = rows[row];
    if (at < 0) {
      none = decay == 1.0f && !moved[row];  // no thread writes `moved` of a row without a gradient
      return {};
    }
    if (i % columns == 0) moved[row] = 1;
    return load_elements<N>(grad + at * std::int64_t{columns} + i % columns);
  }
};

/// The rows of a table that begin among elements [first, first + count) have a gradient.
__device__ __forceinline__ void mark_rows(const OptimizerSlot& s, std::int64_t first, int count) {
  const std::int64_t begin = (first + s.columns - 1) / s.columns, end = (first + count + s.columns - 1) / s.columns;
  for (std::int64_t row = begin + threadIdx.x; row < end; row += kOptimizerThreads) s.moved[row] = 1;
}

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

/// N elements from i on. Moment is float or bf16.
template <int N, class Moment>
__device__ __forceinline__ void update_elements(const OptimizerSlot& s, const AdamWFactors& f, float scale,
                                                std::int64_t i) {
  bool none = false;
  const auto grad = s.gradient<N>(i, none);
  if (none) return;
  Moment *const m_at = static_cast<Moment*>(s.m) + i, *const v_at = static_cast<Moment*>(s.v) + i;
  auto value = load_elements<N>(s.value + i);
  auto m = load_elements<N>(m_at), v = load_elements<N>(v_at);
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const float g = grad.x[k] * scale;
    const float new_m = __fmaf_rn(f.beta1, moment(m.x[k]), f.rest1 * g);
    const float new_v = __fmaf_rn(f.beta2, moment(v.x[k]), f.rest2 * (g * g));
    const float change = new_m / (__fsqrt_rn(new_v) / f.root_correction + f.eps);
    const std::uint32_t noise =
        sizeof(Moment) == 2 ? rounding_noise(s.noise_key, static_cast<std::uint32_t>(i + k)) : 0;
    set_moment(m.x[k], new_m, noise);
    set_moment(v.x[k], new_v, noise >> 16);
    value.x[k] = __fmaf_rn(-s.step_size, change, value.x[k] * s.decay);
  }
  store_elements<N>(s.value + i, value);
  store_elements<N>(m_at, m);
  store_elements<N>(v_at, v);
}

template <class Moment>
static __global__ void __launch_bounds__(kOptimizerThreads)
    adamw_update(const __grid_constant__ OptimizerSlots slots, AdamWFactors f) {
  const OptimizerSlot& s = slots.of_block(blockIdx.x);
  const std::int64_t first = std::int64_t{static_cast<int>(blockIdx.x) - s.first_block} * s.chunk;
  const float scale = f.max_norm > 0.0f ? fminf(1.0f, f.max_norm / (*f.norm + 1e-6f)) : 1.0f;
  const int count = static_cast<int>(s.numel - first < s.chunk ? s.numel - first : s.chunk);
  if (s.moved && !s.rows) mark_rows(s, first, count);
  const int whole = s.vectors ? count / kVector * kVector : 0;
  for (int k = threadIdx.x * kVector; k < whole; k += kOptimizerThreads * kVector)
    update_elements<kVector, Moment>(s, f, scale, first + k);
  for (int k = whole + threadIdx.x; k < count; k += kOptimizerThreads)
    update_elements<1, Moment>(s, f, scale, first + k);
}

/// sums[first + block] = the sum of squares of a chunk. A thread has the same elements in the same order whether they
/// are moved as vectors or not.
static __global__ void __launch_bounds__(kOptimizerThreads)
    gradient_squares(const __grid_constant__ OptimizerSlots slots, TwoFloat* sums) {
  CALD_SHARED(TwoFloat, of_warp, [kOptimizerThreads / 32]);
  const OptimizerSlot& s = slots.of_block(blockIdx.x);
  const std::int64_t first = std::int64_t{static_cast<int>(blockIdx.x) - s.first_block} * kChunk;
  TwoFloat sum{};
  for (int k = threadIdx.x * kVector; k < kChunk && first + k < s.numel; k += kOptimizerThreads * kVector) {
    Elements<float, kVector> g{};
    if (s.vectors && first + k + kVector <= s.numel)
      g = load_elements<kVector>(s.grad + first + k);
    else
      for (int e = 0; e < kVector && first + k + e < s.numel; ++e) g.x[e] = s.grad[first + k + e];
#pragma unroll
    for (int e = 0; e < kVector; ++e) sum = add_product(sum, g.x[e], g.x[e]);
  }
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
