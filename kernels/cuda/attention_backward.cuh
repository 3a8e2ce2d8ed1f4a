// Attention backward in f32 (Dao et al. 2022, "FlashAttention", algorithm 4; Dao 2023). With p = exp(scale q k - lse),
// dp = dropout(dy v) and ds = p (dp - delta), delta = sum over keys of p dp:
//   dq = scale ds k,   dk = scale ds^T q,   dv = dropout(p)^T dy.
//
// Three kernels. The first takes the sums of p and p dp by query; dividing by the sum of p, the rounding of lse
// cancels, and a query that sees one key only gets ds = 0 exactly (delta = sum(y dy) would save this pass, and lose
// that). No sum is shared by two blocks, so the order of every sum is fixed: a block of the queries' kernel holds a
// tile of queries and walks over keys, one of the keys' kernel holds a tile of keys and walks over queries. Both are
// the same kernel: "rows" are what a block holds, "columns" what it walks over.
//
// Device memory read, with R = kRows and d = head size: the rows' two operands once, the columns' two operands once for
// each tile of rows, and a row's few numbers by each of its 16 threads, so at most
//   B heads 4 (2 Sq d + ceil(Sq / R) Sk (2 d + 2) + 48 Sq)        for dq (16 Sq in place of 48 Sq for the sums),
//   B heads 4 (2 Sk d + ceil(Sk / R) Sq (2 d + 3) + 17 Sk)        for dk and dv,
// besides what is added to.
#pragma once
#include "kernels/cuda/attention_forward.cuh"

namespace cald::cuda {

template <int kHead>
struct BackwardTiles {
  static constexpr int kRows = kHead > 128 ? 32 : 64, kColumns = 32;
  static constexpr int kR = kRows / 16, kC = kColumns / 16;
  static constexpr int kHeld = kRows * f32_tiles::kStride<kHead>, kPassing = kColumns * f32_tiles::kStride<kHead>;
  static constexpr int kWeights = kRows * kColumns;
  static constexpr std::size_t kBytes = (2 * kHeld + 2 * kPassing + 2 * kWeights + 3 * kColumns) * sizeof(float);
};

/// What the backward knows of a query.
struct QueryStatistics {
  float lse, inverse, delta;
};
__device__ __forceinline__ QueryStatistics query_statistics(const AttentionBackwardOperands<float>& a, int query) {
  const bool valid = query < a.n.queries;
  return {usable_lse(a, query), valid ? a.inverse[a.n.statistic(query)] : 0.0f,
          valid ? a.delta[a.n.statistic(query)] : 0.0f};
}

/// From scores s and g = dy v to the dropped probabilities (in s) and the gradient of the scores (in g).
__device__ __forceinline__ void score_gradient(float& s, float& g, float scale, bool seen, const QueryStatistics& q,
                                               const ProbabilityDropout& dropout, std::uint32_t drawn) {
  const float p = seen ? expf(__fmul_rn(s, scale) - q.lse) * q.inverse : 0.0f;
  const bool drops = dropout.samples != nullptr;
  g = seen ? p * ((drops ? dropout(g, drawn) : g) - q.delta) : 0.0f;  // g may come from a key that does not count
  s = drops ? dropout(p, drawn) : p;
}

/// A block's rows are queries: their statistics are the thread's own, the keys' bias comes by the tile.
template <int kHead>
struct QueriesHeld {
  using Tiles = BackwardTiles<kHead>;
  static constexpr int kR = Tiles::kR, kC = Tiles::kC;
  const AttentionBackwardOperands<float>& a;
  float* bias;  // (kColumns)
  QueryStatistics statistics[kR];

  __device__ QueriesHeld(const AttentionBackwardOperands<float>& operands, float* shared, int query)
      : a(operands), bias(shared) {
#pragma unroll
    for (int r = 0; r < kR; ++r) statistics[r] = query_statistics(a, query + r);
  }
  __device__ void load_columns(int key0, int columns) { load_bias<Tiles::kColumns>(bias, a.mask, key0, columns); }
  /// A barrier behind the loads of the keys' tile.
  __device__ void wait_for_columns(float* keys, int columns) const {
    clear_uncounted<kHead, f32_tiles::kStride<kHead>>(keys, bias, columns, f32_tiles::place_of<kC>);
  }
  __device__ void gradient(float (&s)[kR][kC], float (&g)[kR][kC], std::uint32_t sample, int query, int key) const {
    float b[kC];
    f32_tiles::read_floats<kC>(bias + f32_tiles::thread_x() * kC, b);
#pragma unroll
    for (int r = 0; r < kR; ++r) {
      const DropoutBits bits = a.dropout.bits(sample, a.n, query + r, key);
#pragma unroll
      for (int c = 0; c < kC; ++c)
        score_gradient(s[r][c], g[r][c], a.n.scale, b[c] == 0 && a.n.sees(query + r, key + c), statistics[r], a.dropout,
                       bits[key % 4 + c]);
    }
  }
};

/// A block's rows are keys: whether they count is the thread's own, the queries' statistics come by the tile.
template <int kHead>
struct KeysHeld {
  using Tiles = BackwardTiles<kHead>;
  static constexpr int kR = Tiles::kR, kC = Tiles::kC, kColumns = Tiles::kColumns;
  const AttentionBackwardOperands<float>& a;
  float* statistics;  // lse, inverse, delta (kColumns) each
  bool counts[kR];

  __device__ KeysHeld(const AttentionBackwardOperands<float>& operands, float* shared, int key)
      : a(operands), statistics(shared) {
#pragma unroll
    for (int r = 0; r < kR; ++r) counts[r] = key + r < a.n.keys && a.mask.counts(key + r);
  }
  __device__ void load_columns(int query0, int) {
    for (int j = threadIdx.x; j < kColumns; j += f32_tiles::kThreads) {
      const QueryStatistics q = query_statistics(a, query0 + j);
      statistics[j] = q.lse, statistics[kColumns + j] = q.inverse, statistics[2 * kColumns + j] = q.delta;
    }
  }
  __device__ void wait_for_columns(float*, int) const { __syncthreads(); }
  __device__ void gradient(float (&s)[kR][kC], float (&g)[kR][kC], std::uint32_t sample, int key, int query) const {
    float q[3][kC];
#pragma unroll
    for (int i = 0; i < 3; ++i)
      f32_tiles::read_floats<kC>(statistics + i * kColumns + f32_tiles::thread_x() * kC, q[i]);
#pragma unroll
    for (int c = 0; c < kC; ++c) {
      const DropoutBits bits = a.dropout.bits(sample, a.n, query + c, key);
#pragma unroll
      for (int r = 0; r < kR; ++r)
        score_gradient(s[r][c], g[r][c], a.n.scale, counts[r] && a.n.sees(query + c, key + r),
                       {q[0][c], q[1][c], q[2][c]}, a.dropout, bits[key % 4 + r]);
    }
  }
};

/// inverse and delta of a tile of queries.
template <int kHead>
static __global__ void __launch_bounds__(f32_tiles::kThreads, 1)
    attention_sums_f32(AttentionBackwardOperands<float> a) {
  using Tiles = BackwardTiles<kHead>;
  constexpr int kRows = Tiles::kRows, kColumns = Tiles::kColumns, kR = Tiles::kR, kC = Tiles::kC;
  CALD_DYNAMIC_SHARED(float, q);
  float *dy = q + Tiles::kHeld, *k = dy + Tiles::kHeld, *v = k + Tiles::kPassing, *bias = v + Tiles::kPassing;
  const AttentionSizes& n = a.n;
  const int row0 = blockIdx.x * kRows, rows = min(kRows, n.queries - row0);
  const int query = row0 + f32_tiles::thread_y() * kR;
  const KeyRange range = key_range(a.mask, n, row0 + rows);
  const std::uint32_t sample = a.dropout.sample();

  f32_tiles::load_tile<kRows, kHead, 1>(q, a.q.head(n.head_size).from(row0), rows, n.head_size);
  f32_tiles::load_tile<kRows, kHead, 1>(dy, a.dy.head(n.head_size).from(row0), rows, n.head_size);
  float lse[kR], sum[kR] = {}, weighted[kR] = {};
#pragma unroll
  for (int r = 0; r < kR; ++r) lse[r] = usable_lse(a, query + r);
  for (int key0 = range.begin / kColumns * kColumns; key0 < range.end; key0 += kColumns) {
    const int columns = min(kColumns, range.end - key0), key = key0 + f32_tiles::thread_x() * kC;
    __syncthreads();  // the last tiles are no longer needed
    f32_tiles::load_tile<kColumns, kHead, kC>(k, a.k.head(n.head_size).from(key0), columns, n.head_size);
    f32_tiles::load_tile<kColumns, kHead, kC>(v, a.v.head(n.head_size).from(key0), columns, n.head_size);
    load_bias<kColumns>(bias, a.mask, key0, columns);
    __syncthreads();
    float s[kR][kC], g[kR][kC];
    f32_tiles::scores<kHead>(q, k, s);
    f32_tiles::scores<kHead>(dy, v, g);
    mask_scores(s, n, bias, query, key);
    if (a.dropout.samples) drop(g, a.dropout, sample, n, query, key);
#pragma unroll
    for (int r = 0; r < kR; ++r)
#pragma unroll
      for (int c = 0; c < kC; ++c) {
        const float p = expf(s[r][c] - lse[r]);
        sum[r] += p;
        weighted[r] += s[r][c] == -kInfinity ? 0.0f : p * g[r][c];
      }
  }
#pragma unroll
  for (int r = 0; r < kR; ++r) {
#pragma unroll
    for (int lanes = 8; lanes; lanes /= 2) {
      sum[r] += __shfl_xor_sync(~0u, sum[r], lanes);
      weighted[r] += __shfl_xor_sync(~0u, weighted[r], lanes);
    }
    if (f32_tiles::thread_x() != 0 || query + r >= n.queries) continue;
    const float inverse = sum[r] > 0 ? 1 / sum[r] : 0.0f;
    a.inverse[n.statistic(query + r)] = inverse;
    a.delta[n.statistic(query + r)] = weighted[r] * inverse;
  }
}

/// The columns that a block walks over: none where no row of it counts.
template <bool kKeysHeld>
__device__ KeyRange columns_of(const AttentionBackwardOperands<float>& a, int row0, int rows) {
  if (!kKeysHeld) return key_range(a.mask, a.n, row0 + rows);
  bool counts = false;
  for (int j = threadIdx.x; j < rows; j += f32_tiles::kThreads) counts = counts || a.mask.counts(row0 + j);
  if (!__syncthreads_or(counts)) return {0, 0};
  return {a.n.causal ? max(0, row0 - (a.n.keys - a.n.queries)) : 0, a.n.queries};
}

/// kKeysHeld: dk and dv of a tile of keys; else dq of a tile of queries.
template <int kHead, bool kKeysHeld>
static __global__ void __launch_bounds__(f32_tiles::kThreads, 1)
    attention_backward_f32(AttentionBackwardOperands<float> a) {
  using Tiles = BackwardTiles<kHead>;
  using Held = std::conditional_t<kKeysHeld, KeysHeld<kHead>, QueriesHeld<kHead>>;
  constexpr int kRows = Tiles::kRows, kColumns = Tiles::kColumns, kR = Tiles::kR, kC = Tiles::kC;
  CALD_DYNAMIC_SHARED(float, held);
  float *held_grad = held + Tiles::kHeld, *passing = held_grad + Tiles::kHeld;
  float *passing_grad = passing + Tiles::kPassing, *ds = passing_grad + Tiles::kPassing, *p = ds + Tiles::kWeights;
  const AttentionSizes& n = a.n;
  const int row0 = blockIdx.x * kRows, rows = min(kRows, (kKeysHeld ? n.keys : n.queries) - row0);
  const int row = row0 + f32_tiles::thread_y() * kR;
  const KeyRange range = columns_of<kKeysHeld>(a, row0, rows);
  const std::uint32_t sample = a.dropout.sample();

  // Scores are rows' by columns' operand, their gradients dy v: the other operand of each.
  f32_tiles::load_tile<kRows, kHead, 1>(held, (kKeysHeld ? a.k : a.q).head(n.head_size).from(row0), rows, n.head_size);
  f32_tiles::load_tile<kRows, kHead, 1>(held_grad, (kKeysHeld ? a.v : a.dy).head(n.head_size).from(row0), rows,
                                        n.head_size);
  Held side(a, p + Tiles::kWeights, row);
  float out[kR][kHead / 16] = {}, out_value[kKeysHeld ? kR : 1][kHead / 16] = {};
  for (int column0 = range.begin / kColumns * kColumns; column0 < range.end; column0 += kColumns) {
    const int columns = min(kColumns, range.end - column0);
    __syncthreads();  // the last tiles are no longer needed
    f32_tiles::load_tile<kColumns, kHead, kC>(passing, (kKeysHeld ? a.q : a.k).head(n.head_size).from(column0), columns,
                                              n.head_size);
    f32_tiles::load_tile<kColumns, kHead, kC>(passing_grad, (kKeysHeld ? a.dy : a.v).head(n.head_size).from(column0),
                                              columns, n.head_size);
    side.load_columns(column0, columns);
    side.wait_for_columns(passing, columns);
    float s[kR][kC], g[kR][kC];
    f32_tiles::scores<kHead>(held, passing, s);
    f32_tiles::scores<kHead>(held_grad, passing_grad, g);
    side.gradient(s, g, sample, row, column0 + f32_tiles::thread_x() * kC);
    f32_tiles::store_weights(ds, g);
    if constexpr (kKeysHeld) f32_tiles::store_weights(p, s);
    __syncthreads();
    f32_tiles::add_product<kHead, kColumns>(ds, passing, out);
    if constexpr (kKeysHeld) f32_tiles::add_product<kHead, kColumns>(p, passing_grad, out_value);
  }

  float factor[kR], one[kR];
#pragma unroll
  for (int r = 0; r < kR; ++r) factor[r] = n.scale, one[r] = 1;
  const HeadRows<float>& to = kKeysHeld ? a.dk : a.dq;
  if (to.data) f32_tiles::store_tile<kHead>(to.head(n.head_size).from(row0), rows, n.head_size, out, factor);
  if constexpr (kKeysHeld)
    if (a.dv.data) f32_tiles::store_tile<kHead>(a.dv.head(n.head_size).from(row0), rows, n.head_size, out_value, one);
}

}  // namespace cald::cuda
