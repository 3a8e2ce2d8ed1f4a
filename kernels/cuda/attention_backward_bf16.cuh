// Attention backward in bf16 with f32 sums, on tensor cores (Dao 2023, "FlashAttention-2", algorithm 2), from lse and
// delta = sum(y dy). As in f32 a block of the queries' kernel holds 64 queries and walks over keys, one of the keys'
// kernel holds 64 keys and walks over queries; a warp's scores, with the held rows as rows, are left operands of the
// next product as they lie in registers, rounded to bf16. The tiles walked over come by cp.async, the next while the
// last is worked on.
//
// Device memory read, with d = head size: the held rows' two operands once, the others once for each 64 held rows:
//   B heads (4 Sq d + ceil(Sq / 64) Sk (4 d + 8) + 32 Sq)         for dq,
//   B heads (4 Sk d + ceil(Sk / 64) Sq (4 d + 8) + 20 Sk)         for dk and dv (twice that for heads above 128, whose
//                                                                 sums do not both fit into registers),
//   B heads 4 Sq d                                                for delta, besides what is added to.
#pragma once
#include "kernels/cuda/attention_forward_bf16.cuh"

namespace cald::cuda {

/// What a kernel computes beside the scores: dq, dk and dv, or one of these.
enum class Gradients { dq, dk_dv, dk, dv };

template <int kHead>
struct BackwardTilesBf16 {
  static constexpr int kColumns = 32, kFragments = kColumns / 8;
  static constexpr int kHeld = bf16_tiles::kRows * bf16_tiles::kStride<kHead>;
  static constexpr int kPassing = kColumns * bf16_tiles::kStride<kHead>;
  /// Two held operands; two stages of two passing operands and of two numbers for each column.
  static constexpr std::size_t kBytes = (2 * kHeld + 4 * kPassing) * sizeof(bf16) + 4 * kColumns * sizeof(float);
};

/// delta (B, heads, Sq): eight lanes for each query.
static __global__ void __launch_bounds__(bf16_tiles::kThreads) attention_delta_bf16(AttentionBackwardOperands<bf16> a) {
  const int query = blockIdx.x * (bf16_tiles::kThreads / 8) + threadIdx.x / 8, part = threadIdx.x % 8;
  const bool valid = query < a.n.queries, vectors = a.y.vectors && a.dy.vectors;
  const Rows<const bf16> y = a.y.head(a.n.head_size), dy = a.dy.head(a.n.head_size);
  float sum = 0;
  for (int d = part * 8; valid && d < a.n.head_size; d += 64) {
    if (vectors) {
      const auto p = load_vector<uint4>(y.row(query) + d), q = load_vector<uint4>(dy.row(query) + d);
      const std::uint32_t left[4] = {p.x, p.y, p.z, p.w}, right[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sum += __uint_as_float(left[i] << 16) * __uint_as_float(right[i] << 16);
        sum += __uint_as_float(left[i] & 0xffff0000u) * __uint_as_float(right[i] & 0xffff0000u);
      }
    } else {
      for (int i = d; i < min(d + 8, a.n.head_size); ++i)
        sum += __bfloat162float(y.row(query)[i]) * __bfloat162float(dy.row(query)[i]);
    }
  }
#pragma unroll
  for (int lanes = 4; lanes; lanes /= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
  if (valid && part == 0) a.delta[a.n.statistic(query)] = sum;
}

/// lse in powers of 2, and delta.
__device__ __forceinline__ float2 statistics_bf16(const AttentionBackwardOperands<bf16>& a, int query) {
  return {usable_lse(a, query) * kLog2E, query < a.n.queries ? a.delta[a.n.statistic(query)] : 0.0f};
}

/// What decides on this thread's values in a fragment whose rows are keys, from `key` on, and whose columns are
/// queries, from `query` on. Four lanes draw the four blocks that their values lie in, one each: lane i of them that of
/// value i. Then they exchange: value e needs number i of the block that lane e drew.
__device__ __forceinline__ void bits_of_keys(std::uint32_t (&bits)[4], const ProbabilityDropout& dropout,
                                             std::uint32_t sample, const AttentionSizes& n, int query, int key) {
  const int lane = bf16_tiles::lane(), i = lane / 4 % 4;
  const DropoutBits mine =
      dropout.bits(sample, n, query + bf16_tiles::value_column() + i % 2, key + i / 2 * 8 + lane / 16 * 4);
  std::uint32_t got[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) got[k] = __shfl_xor_sync(~0u, mine[i ^ k], k * 4);
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const int k = i ^ e;  // selected, since an index that is no constant would put them into memory
    const std::uint32_t low = k & 1 ? got[1] : got[0], high = k & 1 ? got[3] : got[2];
    bits[e] = k & 2 ? high : low;
  }
}

/// A block's position, and what its threads know of their two held rows: a query's lse and delta, or whether a key
/// counts.
template <bool kKeysHeld>
struct HeldRows {
  int row0;
  float2 statistics[2];
  bool counts[2];

  __device__ HeldRows(const AttentionBackwardOperands<bf16>& a, int first) : row0(first) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = row0 + bf16_tiles::value_row(half);
      if constexpr (kKeysHeld)
        counts[half] = row < a.n.keys && a.mask.counts(row);
      else
        statistics[half] = statistics_bf16(a, row);
    }
  }
};

/// From scores s and g = dy v of one fragment to the dropped probabilities, without dropout's factor (in s), and the
/// gradient of the scores (in g). `columns`: two numbers for each column of the tile.
template <bool kKeysHeld>
__device__ __forceinline__ void score_gradient(const AttentionBackwardOperands<bf16>& a,
                                               const HeldRows<kKeysHeld>& held, float (&s)[4], float (&g)[4],
                                               const float* columns, std::uint32_t sample, int fragment, int column0) {
  constexpr int kColumns = BackwardTilesBf16<32>::kColumns;
  const int column = fragment * 8 + bf16_tiles::value_column();
  const auto first = load_vector<float2>(columns + column), second = load_vector<float2>(columns + kColumns + column);
  std::uint32_t bits[4] = {};
  if (a.dropout.samples) {
    const int row = held.row0 + bf16_tiles::warp_row();
    if constexpr (kKeysHeld)
      bits_of_keys(bits, a.dropout, sample, a.n, column0 + fragment * 8, row);
    else
      bits_of_queries(bits, a.dropout, sample, a.n, row, column0 + fragment * 8);
  }
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const int row = held.row0 + bf16_tiles::value_row(e / 2), at = column0 + column + e % 2;
    bool seen;
    float lse, delta;
    if constexpr (kKeysHeld) {
      seen = held.counts[e / 2] && a.n.sees(at, row);
      lse = e % 2 ? first.y : first.x, delta = e % 2 ? second.y : second.x;
    } else {
      seen = (e % 2 ? first.y : first.x) == 0 && a.n.sees(row, at);
      lse = held.statistics[e / 2].x, delta = held.statistics[e / 2].y;
    }
    const float p = seen ? exp2f(s[e] * (a.n.scale * kLog2E) - lse) : 0.0f;
    const bool kept = !a.dropout.samples || bits[e] < a.dropout.threshold;
    g[e] = seen ? p * ((kept ? g[e] * a.dropout.scale : 0.0f) - delta) : 0.0f;
    s[e] = kept ? p : 0.0f;
  }
}

/// One stage of what a block walks over: two operands, and lse and delta of queries or the bias of keys.
template <int kHead, Gradients kWanted>
__device__ __forceinline__ void load_columns(const AttentionBackwardOperands<bf16>& a, bf16* tile, float* numbers,
                                             int column0, int end) {
  using Tiles = BackwardTilesBf16<kHead>;
  constexpr bool kKeysHeld = kWanted != Gradients::dq;
  const int columns = min(Tiles::kColumns, end - column0), j = threadIdx.x;
  const auto load = [&](bf16* to, const HeadRows<const bf16>& from) {
    bf16_tiles::load_tile<Tiles::kColumns, kHead>(to, from.head(a.n.head_size).from(column0), columns, a.n.head_size);
  };
  load(tile, kKeysHeld ? a.q : a.k);
  load(tile + Tiles::kPassing, kKeysHeld ? a.dy : a.v);
  if (j >= Tiles::kColumns) return;
  if constexpr (kKeysHeld) {
    const float2 q = statistics_bf16(a, column0 + j);
    numbers[j] = q.x, numbers[Tiles::kColumns + j] = q.y;
  } else {
    numbers[j] = j < columns && a.mask.counts(column0 + j) ? 0.0f : -kInfinity;
    numbers[Tiles::kColumns + j] = 0;
  }
}

/// The columns that a block walks over: none where no row of it counts.
template <bool kKeysHeld>
__device__ KeyRange columns_of(const AttentionBackwardOperands<bf16>& a, int row0, int rows) {
  if (!kKeysHeld) return key_range(a.mask, a.n, row0 + rows);
  const int j = threadIdx.x;
  if (!__syncthreads_or(j < rows && a.mask.counts(row0 + j))) return {0, 0};
  return {a.n.causal ? max(0, row0 - (a.n.keys - a.n.queries)) : 0, a.n.queries};
}

template <int kHead, Gradients kWanted>
static __global__ void __launch_bounds__(bf16_tiles::kThreads, 1)
    attention_backward_bf16(AttentionBackwardOperands<bf16> a) {
  using Tiles = BackwardTilesBf16<kHead>;
  constexpr bool kKeysHeld = kWanted != Gradients::dq, kOfScores = kWanted != Gradients::dv;
  constexpr bool kOfValues = kWanted == Gradients::dk_dv || kWanted == Gradients::dv;
  constexpr int kColumns = Tiles::kColumns, kRows = bf16_tiles::kRows;
  CALD_DYNAMIC_SHARED(bf16, held);
  bf16 *const held_grad = held + Tiles::kHeld, *const passing = held_grad + Tiles::kHeld;
  float* const numbers = reinterpret_cast<float*>(passing + 4 * Tiles::kPassing);
  const AttentionSizes& n = a.n;
  const int row0 = blockIdx.x * kRows, rows = min(kRows, (kKeysHeld ? n.keys : n.queries) - row0);
  const KeyRange range = columns_of<kKeysHeld>(a, row0, rows);
  const int begin = range.begin / kColumns * kColumns;
  const std::uint32_t sample = a.dropout.sample();

  bf16_tiles::load_tile<kRows, kHead>(held, (kKeysHeld ? a.k : a.q).head(n.head_size).from(row0), rows, n.head_size);
  bf16_tiles::load_tile<kRows, kHead>(held_grad, (kKeysHeld ? a.v : a.dy).head(n.head_size).from(row0), rows,
                                      n.head_size);
  if (begin < range.end) load_columns<kHead, kWanted>(a, passing, numbers, begin, range.end);
  cp_async_commit();
  const HeldRows<kKeysHeld> known(a, row0);
  float of_scores[kOfScores ? kHead / 8 : 1][4] = {}, of_values[kOfValues ? kHead / 8 : 1][4] = {};
  for (int column0 = begin, stage = 0; column0 < range.end; column0 += kColumns, stage ^= 1) {
    const int next = column0 + kColumns, other = stage ^ 1;
    if (next < range.end)
      load_columns<kHead, kWanted>(a, passing + other * 2 * Tiles::kPassing, numbers + other * 2 * kColumns, next,
                                   range.end);
    cp_async_commit();
    cp_async_wait<1>();
    bf16* const columns = passing + stage * 2 * Tiles::kPassing;
    // Behind either barrier all threads' copies of this stage have landed.
    if constexpr (kKeysHeld)
      __syncthreads();
    else
      clear_uncounted<kHead, bf16_tiles::kStride<kHead>>(columns, numbers + stage * 2 * kColumns,
                                                         min(kColumns, range.end - column0), [](int j) { return j; });
    float s[Tiles::kFragments][4], g[Tiles::kFragments][4];
    bf16_tiles::scores<kHead>(s, held, columns);
    bf16_tiles::scores<kHead>(g, held_grad, columns + Tiles::kPassing);
#pragma unroll
    for (int f = 0; f < Tiles::kFragments; ++f)
      score_gradient<kKeysHeld>(a, known, s[f], g[f], numbers + stage * 2 * kColumns, sample, f, column0);
    if constexpr (kOfScores) bf16_tiles::add_product<kHead>(of_scores, g, columns);
    if constexpr (kOfValues) bf16_tiles::add_product<kHead>(of_values, s, columns + Tiles::kPassing);
    __syncthreads();  // the stage is loaded anew next
  }
  cp_async_wait<0>();  // the held rows, where there was no column

  const float scales[2] = {n.scale, n.scale}, kept[2] = {a.dropout.scale, a.dropout.scale};
  const HeadRows<bf16>& to = kKeysHeld ? a.dk : a.dq;
  if constexpr (kOfScores)
    if (to.data) bf16_tiles::store_tile<kHead>(to.head(n.head_size).from(row0), rows, n.head_size, of_scores, scales);
  if constexpr (kOfValues)
    if (a.dv.data) bf16_tiles::store_tile<kHead>(a.dv.head(n.head_size).from(row0), rows, n.head_size, of_values, kept);
}

}  // namespace cald::cuda
