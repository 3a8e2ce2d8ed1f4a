// What the attention kernels are given: one head of one sample is a block's or a few blocks' work.
#pragma once
#include "engine/base/rng.h"
#include "kernels/cuda/f32_tiles.cuh"

namespace cald::cuda {

constexpr float kInfinity = __builtin_huge_valf();

/// An operand (B, S, heads * head size) whose rows may be strided.
template <class T>
struct HeadRows {
  T* data = nullptr;  ///< null: absent
  std::int64_t sample_step = 0, row_step = 0;
  bool vectors = false;  ///< a head's rows begin and end at multiples of 16 bytes
  bool add = false;      ///< for gradients

  /// The block's head of its sample.
  __device__ Rows<T> head(int head_size) const {
    return {data + blockIdx.z * sample_step + static_cast<std::int64_t>(blockIdx.y) * head_size, row_step, vectors,
            add};
  }
};

/// (B, Sk), 1 = key counts; null: all do.
struct KeyMask {
  const std::int32_t* data = nullptr;
  std::int64_t sample_step = 0, step = 0;

  __device__ bool counts(int key) const { return !data || data[blockIdx.z * sample_step + key * step] != 0; }
};

/// A barrier for the block; then the rows of a tile whose keys do not count are zeros, since 0 times what stands there
/// may be a NaN. bias (columns) is 0 for keys that count, its element j written by thread j; key j's row begins at
/// place(j), in units of kStride elements.
template <int kHead, int kStride, class T, class Place>
__device__ __forceinline__ void clear_uncounted(T* tile, const float* bias, int columns, const Place& place) {
  const int mine = static_cast<int>(threadIdx.x);
  if (!__syncthreads_or(mine < columns && bias[mine] != 0)) return;
  for (int i = mine; i < columns * kHead; i += blockDim.x)
    if (bias[i / kHead] != 0) tile[place(i / kHead) * kStride + i % kHead] = T(0.0f);
  __syncthreads();
}

/// Grid (tiles of rows, heads, B). Key j counts for query i if j <= i + keys - queries, where causal.
struct AttentionSizes {
  int queries, keys, head_size;
  float scale;
  bool causal;

  __device__ bool sees(int query, int key) const { return !causal || key <= query + keys - queries; }
  /// Where row `query` of this head stands in lse (B, heads, Sq).
  __device__ std::int64_t statistic(int query) const {
    return (static_cast<std::int64_t>(blockIdx.z) * gridDim.y + blockIdx.y) * queries + query;
  }
};

/// Dropout of the probabilities; its element is (sample, head * Sq + query, key).
struct ProbabilityDropout {
  RngKey site;
  std::uint32_t threshold = 0;
  float scale = 1;
  const std::int32_t* samples = nullptr;  ///< null: no dropout
  std::int64_t samples_step = 0;

  __device__ std::uint32_t sample() const {
    return samples ? static_cast<std::uint32_t>(samples[blockIdx.z * samples_step]) : 0;
  }
  /// The bits of the four keys from key / 4 * 4 on; without dropout any.
  __device__ DropoutBits bits(std::uint32_t sample, const AttentionSizes& n, int query, int key) const {
    if (!samples) return {};
    return dropout_bits(site, sample, blockIdx.y * static_cast<std::uint32_t>(n.queries) + query,
                        static_cast<std::uint32_t>(key / 4));
  }
  __device__ float operator()(float x, std::uint32_t drawn) const { return drawn < threshold ? x * scale : 0.0f; }
};

template <class T>
struct AttentionForwardOperands {
  HeadRows<const T> q, k, v;
  HeadRows<T> y;
  float* lse;  ///< (B, heads, Sq)
  AttentionSizes n;
  KeyMask mask;
  ProbabilityDropout dropout;
};

template <class T>
struct AttentionBackwardOperands {
  HeadRows<const T> q, k, v, y, dy;
  HeadRows<T> dq, dk, dv;
  const float* lse;
  float *inverse, *delta;  ///< (B, heads, Sq): 1 / sum of p (f32 only), and sum of p dp divided by it
  AttentionSizes n;
  KeyMask mask;
  ProbabilityDropout dropout;
};

/// lse with +inf where there is no key or no query, which makes all probabilities 0.
template <class T>
__device__ __forceinline__ float usable_lse(const AttentionBackwardOperands<T>& a, int query) {
  const float lse = query < a.n.queries ? a.lse[a.n.statistic(query)] : kInfinity;
  return lse == -kInfinity ? kInfinity : lse;
}

struct KeyRange {
  int begin, end;
};

/// The range in which all keys of the block's sample lie that count for a query below `query_end`: pads at both ends
/// cost nothing but reading the mask. All threads of the block call it.
__device__ inline KeyRange key_range(const KeyMask& mask, const AttentionSizes& n, int query_end) {
  int end = n.causal ? min(n.keys, query_end + n.keys - n.queries) : n.keys;
  end = max(end, 0);
  if (!mask.data) return {0, end};
  CALD_SHARED(int, bounds, [2]);
  if (threadIdx.x == 0) bounds[0] = end, bounds[1] = 0;
  __syncthreads();
  int first = end, last = 0;
  for (int j = threadIdx.x; j < end; j += blockDim.x)
    if (mask.counts(j)) first = min(first, j), last = j + 1;
  if (last) {
    atomicMin(&bounds[0], first);
    atomicMax(&bounds[1], last);
  }
  __syncthreads();
  return {bounds[0], bounds[1]};
}

}  // namespace cald::cuda
