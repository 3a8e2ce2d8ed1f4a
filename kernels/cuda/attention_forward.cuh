// Attention forward in f32 (Dao et al. 2022, "FlashAttention", algorithm 1, with the loops of Dao 2023): a block holds
// a tile of queries and walks over the tiles of keys; the softmax is rescaled as its maximum grows.
//
// Device memory read: q once; k and v once for each tile of queries, from the first to the last key that counts; the
// mask twice. With T = ceil(Sq / 64) tiles of queries and d = head size, at most
//   B heads 4 (Sq d + T Sk (2 d + 2)) bytes, and B heads 4 Sq (d + 1) bytes written.
#pragma once
#include "kernels/cuda/attention_operands.cuh"
#include "kernels/cuda/f32_tiles.cuh"

namespace cald::cuda {

template <int kHead>
struct ForwardTiles {
  static constexpr int kRows = 64, kColumns = kHead > 128 ? 32 : 64;
  static constexpr int kR = kRows / 16, kC = kColumns / 16;
  /// Floats of queries, of keys and then values, of probabilities, and of the keys' bias.
  static constexpr int kQ = kRows * f32_tiles::kStride<kHead>, kKV = kColumns * f32_tiles::kStride<kHead>;
  static constexpr std::size_t kBytes = (kQ + kKV + kRows * kColumns + kColumns) * sizeof(float);
};

/// The running softmax of a thread's rows: its maximum, and this thread's part of its sum.
template <int kR>
struct RunningSoftmax {
  float top[kR], sum[kR];

  __device__ void start() {
#pragma unroll
    for (int r = 0; r < kR; ++r) top[r] = -kInfinity, sum[r] = 0;
  }
  /// Turns row r of scores into exp(score - maximum); returns the factor for what was summed before.
  template <int kC>
  __device__ float add(int r, float (&s)[kC]) {
    float high = top[r];
#pragma unroll
    for (int c = 0; c < kC; ++c) high = fmaxf(high, s[c]);
#pragma unroll
    for (int lanes = 8; lanes; lanes /= 2) high = fmaxf(high, __shfl_xor_sync(~0u, high, lanes));
    const float base = high == -kInfinity ? 0.0f : high, factor = expf(top[r] - base);
    top[r] = high;
    sum[r] *= factor;
#pragma unroll
    for (int c = 0; c < kC; ++c) sum[r] += s[c] = expf(s[c] - base);
    return factor;
  }
  /// The sum of row r over its 16 threads.
  __device__ float total(int r) const {
    float all = sum[r];
#pragma unroll
    for (int lanes = 8; lanes; lanes /= 2) all += __shfl_xor_sync(~0u, all, lanes);
    return all;
  }
};

/// bias (kColumns) = 0 for keys that count, else -inf.
template <int kColumns>
__device__ __forceinline__ void load_bias(float* bias, const KeyMask& mask, int key0, int columns) {
  for (int j = threadIdx.x; j < kColumns; j += f32_tiles::kThreads)
    bias[j] = j < columns && mask.counts(key0 + j) ? 0.0f : -kInfinity;
}

/// Scales and masks a thread's scores; `bias` is 0 for keys that count, else -inf.
template <int kR, int kC>
__device__ __forceinline__ void mask_scores(float (&s)[kR][kC], const AttentionSizes& n, const float* bias, int query,
                                            int key) {
  float b[kC];
  f32_tiles::read_floats<kC>(bias + f32_tiles::thread_x() * kC, b);
#pragma unroll
  for (int r = 0; r < kR; ++r)
#pragma unroll
    for (int c = 0; c < kC; ++c)
      s[r][c] = b[c] == 0 && n.sees(query + r, key + c) ? __fmul_rn(s[r][c], n.scale) : -kInfinity;
}

/// Drops probabilities of queries query + r and keys key + c.
template <int kR, int kC>
__device__ __forceinline__ void drop(float (&p)[kR][kC], const ProbabilityDropout& dropout, std::uint32_t sample,
                                     const AttentionSizes& n, int query, int key) {
#pragma unroll
  for (int r = 0; r < kR; ++r) {
    const DropoutBits bits = dropout.bits(sample, n, query + r, key);
#pragma unroll
    for (int c = 0; c < kC; ++c) p[r][c] = dropout(p[r][c], bits[key % 4 + c]);
  }
}

template <int kHead>
static __global__ void __launch_bounds__(f32_tiles::kThreads, 1)
    attention_forward_f32(AttentionForwardOperands<float> a) {
  using Tiles = ForwardTiles<kHead>;
  constexpr int kRows = Tiles::kRows, kColumns = Tiles::kColumns, kR = Tiles::kR, kC = Tiles::kC;
  CALD_DYNAMIC_SHARED(float, q);
  float *kv = q + Tiles::kQ, *weights = kv + Tiles::kKV, *bias = weights + kRows * kColumns;
  const AttentionSizes& n = a.n;
  const int row0 = blockIdx.x * kRows, rows = min(kRows, n.queries - row0);
  const int query = row0 + f32_tiles::thread_y() * kR;
  const KeyRange range = key_range(a.mask, n, row0 + rows);
  const std::uint32_t sample = a.dropout.sample();

  f32_tiles::load_tile<kRows, kHead, 1>(q, a.q.head(n.head_size).from(row0), rows, n.head_size);
  RunningSoftmax<kR> softmax;
  softmax.start();
  float out[kR][kHead / 16] = {};
  for (int key0 = range.begin / kColumns * kColumns; key0 < range.end; key0 += kColumns) {
    const int columns = min(kColumns, range.end - key0), key = key0 + f32_tiles::thread_x() * kC;
    __syncthreads();  // the last tile's values and weights are no longer needed
    f32_tiles::load_tile<kColumns, kHead, kC>(kv, a.k.head(n.head_size).from(key0), columns, n.head_size);
    load_bias<kColumns>(bias, a.mask, key0, columns);
    __syncthreads();
    float s[kR][kC];
    f32_tiles::scores<kHead>(q, kv, s);
    mask_scores(s, n, bias, query, key);
#pragma unroll
    for (int r = 0; r < kR; ++r) {
      const float factor = softmax.add(r, s[r]);
#pragma unroll
      for (int i = 0; i < kHead / 16; ++i) out[r][i] *= factor;
    }
    if (a.dropout.samples) drop(s, a.dropout, sample, n, query, key);
    f32_tiles::store_weights(weights, s);
    __syncthreads();  // all threads have read the keys
    f32_tiles::load_tile<kColumns, kHead, kC>(kv, a.v.head(n.head_size).from(key0), columns, n.head_size);
    clear_uncounted<kHead, f32_tiles::kStride<kHead>>(kv, bias, columns, f32_tiles::place_of<kC>);
    f32_tiles::add_product<kHead, kColumns>(weights, kv, out);
  }

  float factor[kR];
#pragma unroll
  for (int r = 0; r < kR; ++r) {
    const float total = softmax.total(r);
    factor[r] = total > 0 ? 1 / total : 0.0f;
    if (f32_tiles::thread_x() == 0 && query + r < n.queries)
      a.lse[n.statistic(query + r)] = softmax.top[r] + logf(total);
  }
  f32_tiles::store_tile<kHead>(a.y.head(n.head_size).from(row0), rows, n.head_size, out, factor);
}

}  // namespace cald::cuda
