// Attention forward in bf16 with f32 sums, on tensor cores (Dao 2023, "FlashAttention-2", algorithm 1): a warp holds 16
// queries and its scores, probabilities and output in registers; tiles of keys and values come by cp.async, the next
// while the last is worked on. Probabilities are rounded to bf16 for their product with the values.
//
// Device memory read: q once; k and v once for each of the T = ceil(Sq / 64) tiles of queries; the mask twice:
//   B heads (2 Sq d + T Sk (4 d + 8)) bytes, and B heads Sq (2 d + 4) bytes written, with d = head size.
#pragma once
#include "kernels/cuda/attention_operands.cuh"
#include "kernels/cuda/bf16_tiles.cuh"

namespace cald::cuda {

constexpr float kLog2E = 1.44269504089f, kLn2 = 0.69314718056f;

template <int kHead>
struct ForwardTilesBf16 {
  static constexpr int kColumns = kHead > 128 ? 32 : 64, kFragments = kColumns / 8;
  static constexpr int kQ = bf16_tiles::kRows * bf16_tiles::kStride<kHead>;
  static constexpr int kK = kColumns * bf16_tiles::kStride<kHead>;
  /// Queries; two stages of keys, values and bias.
  static constexpr std::size_t kBytes = (kQ + 4 * kK) * sizeof(bf16) + 2 * kColumns * sizeof(float);
};

/// What decides on this thread's values in a fragment whose rows are queries, from `query` on, and whose columns are
/// keys, from `key` on. Four keys belong to two lanes, in two rows: each lane draws one row's four.
__device__ __forceinline__ void bits_of_queries(std::uint32_t (&bits)[4], const ProbabilityDropout& dropout,
                                                std::uint32_t sample, const AttentionSizes& n, int query, int key) {
  const int t = bf16_tiles::lane() % 4;
  const bool odd = t % 2;
  const DropoutBits mine = dropout.bits(sample, n, query + bf16_tiles::lane() / 4 + (odd ? 8 : 0), key + t / 2 * 4);
  const std::uint32_t other = __shfl_xor_sync(~0u, odd ? mine.w[0] : mine.w[1], 1);
  const std::uint32_t of_row[2] = {odd ? other : mine.w[0], odd ? mine.w[1] : other};
#pragma unroll
  for (int e = 0; e < 4; ++e) bits[e] = of_row[e / 2] >> e % 2 * 16 & 0xFFFFu;
}

/// The running softmax of a thread's two rows, with scores as powers of 2.
struct RunningSoftmaxBf16 {
  float top[2] = {-kInfinity, -kInfinity}, sum[2] = {0, 0};

  /// Turns one row's half of every fragment into 2^(score - maximum); returns the factor for what was summed before.
  template <int kFragments>
  __device__ __forceinline__ float add(int half, float (&s)[kFragments][4]) {
    float high = top[half];
#pragma unroll
    for (int i = 0; i < 2 * kFragments; ++i) high = fmaxf(high, s[i / 2][half * 2 + i % 2]);
    high = fmaxf(high, __shfl_xor_sync(~0u, high, 1));
    high = fmaxf(high, __shfl_xor_sync(~0u, high, 2));
    const float base = high == -kInfinity ? 0.0f : high, factor = exp2f(top[half] - base);
    top[half] = high;
    sum[half] *= factor;
#pragma unroll
    for (int i = 0; i < 2 * kFragments; ++i) {
      float& x = s[i / 2][half * 2 + i % 2];
      sum[half] += x = exp2f(x - base);
    }
    return factor;
  }
  __device__ float total(int half) const {
    const float pair = sum[half] + __shfl_xor_sync(~0u, sum[half], 1);
    return pair + __shfl_xor_sync(~0u, pair, 2);
  }
};

/// One stage: a tile of keys and values and the keys' bias.
template <int kHead>
__device__ __forceinline__ void load_keys(const AttentionForwardOperands<bf16>& a, bf16* k, float* bias, int key0,
                                          int end) {
  using Tiles = ForwardTilesBf16<kHead>;
  const int columns = min(Tiles::kColumns, end - key0), j = threadIdx.x;
  bf16_tiles::load_tile<Tiles::kColumns, kHead>(k, a.k.head(a.n.head_size).from(key0), columns, a.n.head_size);
  bf16_tiles::load_tile<Tiles::kColumns, kHead>(k + Tiles::kK, a.v.head(a.n.head_size).from(key0), columns,
                                                a.n.head_size);
  if (j < Tiles::kColumns) bias[j] = j < columns && a.mask.counts(key0 + j) ? 0.0f : -kInfinity;
}

/// From scores to probabilities; rescales the output so far.
template <int kHead, int kFragments>
__device__ __forceinline__ void probabilities(const AttentionForwardOperands<bf16>& a, float (&s)[kFragments][4],
                                              RunningSoftmaxBf16& softmax, float (&out)[kHead / 8][4],
                                              const float* bias, std::uint32_t sample, int query0, int key0) {
  const AttentionSizes& n = a.n;
  const float scale = n.scale * kLog2E;
#pragma unroll
  for (int f = 0; f < kFragments; ++f) {
    const int column = f * 8 + bf16_tiles::value_column();
    const auto b = load_vector<float2>(bias + column);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const bool counts = (e % 2 ? b.y : b.x) == 0;
      const bool seen = counts && n.sees(query0 + bf16_tiles::value_row(e / 2), key0 + column + e % 2);
      s[f][e] = seen ? s[f][e] * scale : -kInfinity;
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float factor = softmax.add(half, s);
#pragma unroll
    for (int d = 0; d < kHead / 8; ++d) out[d][half * 2] *= factor, out[d][half * 2 + 1] *= factor;
  }
  if (!a.dropout.samples) return;
#pragma unroll
  for (int f = 0; f < kFragments; ++f) {
    std::uint32_t bits[4];
    bits_of_queries(bits, a.dropout, sample, n, query0 + bf16_tiles::warp_row(), key0 + f * 8);
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (bits[e] >= a.dropout.threshold) s[f][e] = 0;
  }
}

template <int kHead>
static __global__ void __launch_bounds__(bf16_tiles::kThreads, 1)
    attention_forward_bf16(AttentionForwardOperands<bf16> a) {
  using Tiles = ForwardTilesBf16<kHead>;
  constexpr int kColumns = Tiles::kColumns;
  CALD_DYNAMIC_SHARED(bf16, q);
  bf16* const keys = q + Tiles::kQ;  // stages of keys, then values
  float* const bias = reinterpret_cast<float*>(keys + 4 * Tiles::kK);
  const AttentionSizes& n = a.n;
  const int row0 = blockIdx.x * bf16_tiles::kRows, rows = min(bf16_tiles::kRows, n.queries - row0);
  const KeyRange range = key_range(a.mask, n, row0 + rows);
  const int begin = range.begin / kColumns * kColumns;
  const std::uint32_t sample = a.dropout.sample();

  bf16_tiles::load_tile<bf16_tiles::kRows, kHead>(q, a.q.head(n.head_size).from(row0), rows, n.head_size);
  if (begin < range.end) load_keys<kHead>(a, keys, bias, begin, range.end);
  cp_async_commit();
  RunningSoftmaxBf16 softmax;
  float out[kHead / 8][4] = {};
  for (int key0 = begin, stage = 0; key0 < range.end; key0 += kColumns, stage ^= 1) {
    const int next = key0 + kColumns, other = stage ^ 1;
    if (next < range.end) load_keys<kHead>(a, keys + other * 2 * Tiles::kK, bias + other * kColumns, next, range.end);
    cp_async_commit();
    cp_async_wait<1>();
    bf16* const k = keys + stage * 2 * Tiles::kK;
    // Behind its barrier all threads' copies of this stage have landed.
    clear_uncounted<kHead, bf16_tiles::kStride<kHead>>(k + Tiles::kK, bias + stage * kColumns,
                                                       min(kColumns, range.end - key0), [](int j) { return j; });
    float s[Tiles::kFragments][4];
    bf16_tiles::scores<kHead>(s, q, k);
    probabilities<kHead>(a, s, softmax, out, bias + stage * kColumns, sample, row0, key0);
    bf16_tiles::add_product<kHead>(out, s, k + Tiles::kK);
    __syncthreads();  // the stage is loaded anew next
  }
  cp_async_wait<0>();  // the queries, where there was no key

  float factor[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float total = softmax.total(half);
    factor[half] = total > 0 ? a.dropout.scale / total : 0.0f;
    const int row = bf16_tiles::value_row(half);
    if (bf16_tiles::value_column() == 0 && row < rows)
      a.lse[n.statistic(row0 + row)] = (softmax.top[half] + log2f(total)) * kLn2;
  }
  bf16_tiles::store_tile<kHead>(a.y.head(n.head_size).from(row0), rows, n.head_size, out, factor);
}

}  // namespace cald::cuda
