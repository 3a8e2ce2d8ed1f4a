// The projection of the sequence axis to k slots, forward and backward: three products of matrices whose rows are
// picked by rank. Here in f32; low_rank_bf16.cuh has them in bf16. A token without a rank contributes nothing and is
// not read.
//
// Device memory read, with tiles of 64 rows and columns (32 for de), S tokens, D columns, k slots, P positions:
//   forward  B 4 (ceil(k / 64) S D + ceil(D / 64) S k + ceil(k / 64) ceil(D / 64) S)
//   dx       B 4 (ceil(D / 64) S k + ceil(S / 64) k D + ceil(S / 64) ceil(D / 64) 64)
//   de       4 (B ceil(k / 32) P D + B ceil(P / 32) k D + max(B, Z) ceil(k / 32) P) at most, besides what is added to,
//            and B 4 S for the table of tokens; the Z parts of its sum are 4 Z P k, written and read
#pragma once
#include "kernels/cuda/f32_tiles.cuh"

namespace cald::cuda {

/// A matrix of every sample, or the same for all with a sample_step of 0.
template <class T>
struct SampleRows {
  Rows<T> rows;
  std::int64_t sample_step = 0;

  __device__ Rows<T> of(int b) const { return {rows.data + b * sample_step, rows.step, rows.vectors, rows.add}; }
};

struct Ranks {
  const std::int32_t* data;  ///< (B, S)
  std::int64_t sample_step, step;
  const std::int32_t* lengths;  ///< (B)
  std::int64_t length_step;

  __device__ int rank(int b, int token) const { return data[b * sample_step + token * step]; }
  __device__ float scale(int b) const {
    const int n = lengths[b * length_step];
    return n > 0 ? 1 / sqrtf(static_cast<float>(n)) : 0.0f;
  }
};

template <class T>
struct LowRankOperands {
  SampleRows<const T> x, dy;  ///< (B, S, D), (B, k, D)
  Rows<const float> e;        ///< (P, k)
  SampleRows<T> y, dx;
  SampleRows<float> dx_f32;  ///< dx where it is f32 and x is not; else without data
  SampleRows<float> de;      ///< (Z, P, k): of each part of the sum
  Ranks ranks;
  std::int32_t* token;  ///< (B, P): the token with this rank, or -1; backward for de only
  int batch, tokens, width, slots, positions;
};

/// y: tile of 64 slots (blockIdx.y) by 64 columns (blockIdx.x) of a sample, summed over its tokens in their order.
static __global__ void __launch_bounds__(f32_tiles::kThreads, 2) low_rank_forward_f32(LowRankOperands<float> a) {
  constexpr int kTile = 64, kTokens = 32;
  CALD_SHARED(float, e, [kTokens * kTile]);
  CALD_SHARED(float, x, [kTokens * kTile]);
  CALD_SHARED(int, ranks, [kTokens]);
  const int column0 = blockIdx.x * kTile, slot0 = blockIdx.y * kTile, b = blockIdx.z;
  const Rows<const float> x_rows = a.x.of(b).from(0, column0);
  const Rows<const float> e_rows = a.e.from(0, slot0);
  float out[4][4] = {};
  for (int token0 = 0; token0 < a.tokens; token0 += kTokens) {
    const int mine = static_cast<int>(threadIdx.x);
    const int rank = mine < kTokens && token0 + mine < a.tokens ? a.ranks.rank(b, token0 + mine) : -1;
    if (!__syncthreads_or(rank >= 0)) continue;  // a barrier, too: the last tiles are no longer needed
    if (mine < kTokens) ranks[mine] = rank;
    __syncthreads();
    f32_tiles::load_tile<kTokens, kTile, 1, kTile>(e, e_rows, a.slots - slot0, [&](int i) { return ranks[i]; });
    f32_tiles::load_tile<kTokens, kTile, 1, kTile>(x, x_rows, a.width - column0,
                                                   [&](int i) { return ranks[i] < 0 ? -1 : token0 + i; });
    __syncthreads();
    float sum[4][4] = {};  // of this chunk alone: blocked sums round less
#pragma unroll 4
    for (int t = 0; t < kTokens; ++t) {
      float left[4], right[4];
      f32_tiles::read_floats<4>(e + t * kTile + f32_tiles::thread_y() * 4, left);
      f32_tiles::read_floats<4>(x + t * kTile + f32_tiles::thread_x() * 4, right);
#pragma unroll
      for (int r = 0; r < 4; ++r)
#pragma unroll
        for (int c = 0; c < 4; ++c) sum[r][c] += left[r] * right[c];
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) out[i / 4][i % 4] += sum[i / 4][i % 4];
  }
  const float scale = a.ranks.scale(b), factor[4] = {scale, scale, scale, scale};
  f32_tiles::store_tile<kTile>(a.y.of(b).from(slot0, column0), min(kTile, a.slots - slot0), a.width - column0, out,
                               factor);
}

/// dx: tile of 64 tokens (blockIdx.y) by 64 columns (blockIdx.x) of a sample, summed over slots.
static __global__ void __launch_bounds__(f32_tiles::kThreads, 2) low_rank_backward_x_f32(LowRankOperands<float> a) {
  constexpr int kTile = 64, kSlots = 32;
  CALD_SHARED(float, e, [kTile * kSlots]);
  CALD_SHARED(float, dy, [kSlots * f32_tiles::kStride<kTile>]);
  CALD_SHARED(int, ranks, [kTile]);
  const int column0 = blockIdx.x * kTile, token0 = blockIdx.y * kTile, b = blockIdx.z;
  const int mine = static_cast<int>(threadIdx.x);
  const int rank = mine < kTile && token0 + mine < a.tokens ? a.ranks.rank(b, token0 + mine) : -1;
  if (mine < kTile) ranks[mine] = rank;
  const int slots = __syncthreads_or(rank >= 0) ? a.slots : 0;
  float out[4][4] = {};
  for (int slot0 = 0; slot0 < slots; slot0 += kSlots) {
    __syncthreads();  // the last tiles are no longer needed
    f32_tiles::load_tile<kTile, kSlots, 1, kSlots>(e, a.e.from(0, slot0), slots - slot0,
                                                   [&](int i) { return ranks[i]; });
    f32_tiles::load_tile<kSlots, kTile, 2>(dy, a.dy.of(b).from(slot0, column0), min(kSlots, slots - slot0),
                                           a.width - column0);
    __syncthreads();
    f32_tiles::add_product<kTile, kSlots>(e, dy, out);
  }
  const float scale = a.ranks.scale(b), factor[4] = {scale, scale, scale, scale};
  f32_tiles::store_tile<kTile>(a.dx.of(b).from(token0, column0), min(kTile, a.tokens - token0), a.width - column0, out,
                               factor);
}

/// The table of tokens by rank. Grid (1, B).
static __global__ void __launch_bounds__(f32_tiles::kThreads)
    tokens_by_rank(Ranks ranks, int tokens, int positions, std::int32_t* table) {
  const int b = blockIdx.y;
  std::int32_t* const token = table + static_cast<std::int64_t>(b) * positions;
  for (int r = threadIdx.x; r < positions; r += f32_tiles::kThreads) token[r] = -1;
  __syncthreads();
  for (int s = threadIdx.x; s < tokens; s += f32_tiles::kThreads) {
    const int rank = ranks.rank(b, s);
    if (rank >= 0) token[rank] = s;
  }
}

constexpr int kChunkOfE = 64;  ///< columns of a sample that are in one part of de's sum

/// Goes over the samples of part blockIdx.z of gridDim.z, and over the columns of each that are in it. The parts are
/// runs, as long as one another, of the chunks of the first sample, of the second, and so on.
class SamplesOfPart {
 public:
  int b = 0, begin = 0, end = 0;  ///< the sample and its columns in whole chunks, from the first next() on

  __device__ SamplesOfPart(int batch, int width) : chunks_((width + kChunkOfE - 1) / kChunkOfE) {
    const std::int64_t all = std::int64_t{batch} * chunks_;
    at_ = static_cast<int>(all * blockIdx.z / gridDim.z), last_ = static_cast<int>(all * (blockIdx.z + 1) / gridDim.z);
  }
  /// False: there is no other.
  __device__ bool next() {
    if (at_ >= last_) return false;
    const int chunk = at_ % chunks_, count = min(last_ - at_, chunks_ - chunk);
    b = at_ / chunks_, begin = chunk * kChunkOfE, end = begin + count * kChunkOfE;
    at_ += count;
    return true;
  }

 private:
  int chunks_, at_, last_;
};

/// de: tile of 32 positions (blockIdx.y) by 32 slots (blockIdx.x), a part of the sum over samples and columns.
static __global__ void __launch_bounds__(f32_tiles::kThreads, 2) low_rank_backward_e_f32(LowRankOperands<float> a) {
  constexpr int kTile = 32, kColumns = 64, kStride = f32_tiles::kStride<kColumns>;
  CALD_SHARED(float, x, [kTile * kStride]);
  CALD_SHARED(float, dy, [kTile * kStride]);
  CALD_SHARED(int, tokens, [kTile]);
  const int slot0 = blockIdx.x * kTile, position0 = blockIdx.y * kTile, mine = static_cast<int>(threadIdx.x);
  float out[2][2] = {};
  for (SamplesOfPart part(a.batch, a.width); part.next();) {
    const bool valid = mine < kTile && position0 + mine < a.positions;
    const int token = valid ? a.token[static_cast<std::int64_t>(part.b) * a.positions + position0 + mine] : -1;
    if (!__syncthreads_or(token >= 0)) continue;  // a barrier, too: the last sample's tokens are no longer needed
    if (mine < kTile) tokens[mine] = token;
    float sum[2][2] = {};
    for (int column0 = part.begin; column0 < part.end; column0 += kColumns) {
      __syncthreads();  // tokens are there, and the last tiles no longer needed
      f32_tiles::load_tile<kTile, kColumns, 1>(x, a.x.of(part.b).from(0, column0), a.width - column0,
                                               [&](int i) { return tokens[i]; });
      f32_tiles::load_tile<kTile, kColumns, 2>(dy, a.dy.of(part.b).from(slot0, column0), min(kTile, a.slots - slot0),
                                               a.width - column0);
      __syncthreads();
      float product[2][2];
      f32_tiles::scores<kColumns>(x, dy, product);
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[i / 2][i % 2] += product[i / 2][i % 2];
    }
    const float scale = a.ranks.scale(part.b);
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i / 2][i % 2] += scale * sum[i / 2][i % 2];
  }
  const float factor[2] = {1, 1};
  f32_tiles::store_tile<kTile>(a.de.of(blockIdx.z).from(position0, slot0), min(kTile, a.positions - position0),
                               a.slots - slot0, out, factor);
}

}  // namespace cald::cuda
