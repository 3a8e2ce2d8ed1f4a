// The low-rank projection in bf16 on tensor cores: the three products of low_rank.cuh by tiles of 64 x 64, sums in f32.
// e, which is f32, becomes a sum of two bf16 on its way into shared memory, and so keeps 16 bits for two products; the
// tiles of x and dy come by cp.async, the next ones while the last are multiplied.
//
// Device memory read, with S tokens, D columns, k slots, P positions:
//   forward  B (2 ceil(k / 64) S D + 4 ceil(D / 64) S k + 96 ceil(k / 64) ceil(D / 64) S)
//   dx       B (4 ceil(D / 64) S k + 2 ceil(S / 64) k D + 2048 ceil(S / 64) ceil(D / 64) ceil(k / 32))
//   de       B (2 ceil(k / 64) P D + 2 ceil(P / 64) k D + 2048 ceil(k / 64) ceil(P / 64) ceil(D / 64)) at most,
//            besides what is added to; the Z parts of its sum are 4 Z P k, written and read
// The last terms are ranks and tokens, which each thread asks for by itself and caches answer.
#pragma once
#include "kernels/cuda/bf16_tiles.cuh"
#include "kernels/cuda/low_rank.cuh"

namespace cald::cuda {

namespace low_rank_tiles {

constexpr int kTile = 64, kStep = 32;
using bf16_tiles::kStride;

/// Rows of f32 as the sum of a tile of rounded elements and one of what rounding left, rounded; row i is
/// from.row(index(i)), and zero where index(i) < 0. Zeros right of `columns`.
template <int kRows, int kColumns, class Index>
__device__ __forceinline__ void load_split(bf16 (&tile)[2][kRows * kStride<kColumns>], const Rows<const float>& from,
                                           int columns, const Index& index) {
  constexpr int kEach = kColumns / 4;
  for (int i = threadIdx.x; i < kRows * kEach; i += bf16_tiles::kThreads) {
    const int row = i / kEach, column = i % kEach * 4, at = index(row);
    float4 x{0, 0, 0, 0};
    if (at >= 0 && column < columns) {
      const float* const source = from.row(at) + column;
      if (from.vectors) {
        x = load_vector<float4>(source);
      } else {
        x.x = source[0];
        if (column + 1 < columns) x.y = source[1];
        if (column + 2 < columns) x.z = source[2];
        if (column + 3 < columns) x.w = source[3];
      }
    }
    const auto left = [](float f) { return f - __bfloat162float(__float2bfloat16(f)); };
    const int to = row * kStride<kColumns> + column;
    store_vector(tile[0] + to, uint2{bf16_tiles::pack(x.x, x.y), bf16_tiles::pack(x.z, x.w)});
    store_vector(tile[1] + to, uint2{bf16_tiles::pack(left(x.x), left(x.y)), bf16_tiles::pack(left(x.z), left(x.w))});
  }
}

/// Goes over `extent` by steps: load(first, stage) starts what multiply(stage) needs, and does so for the next step
/// before this one is multiplied.
template <class Load, class Multiply>
__device__ __forceinline__ void each_step(int extent, const Load& load, const Multiply& multiply) {
  if (extent > 0) load(0, 0);
  cp_async_commit();
  for (int first = 0, stage = 0; first < extent; first += kStep, stage ^= 1) {
    if (first + kStep < extent) load(first + kStep, stage ^ 1);
    cp_async_commit();  // perhaps of nothing: the wait is for all but the newest
    cp_async_wait<1>();
    __syncthreads();
    multiply(stage);
    __syncthreads();  // these tiles are no longer needed
  }
}

}  // namespace low_rank_tiles

/// y: tile of 64 slots (blockIdx.y) by 64 columns (blockIdx.x) of a sample, summed over its tokens.
static __global__ void __launch_bounds__(bf16_tiles::kThreads) low_rank_forward_bf16(LowRankOperands<bf16> a) {
  using namespace low_rank_tiles;
  CALD_SHARED(bf16, e, [2][2][kStep * kStride<kTile>]);
  CALD_SHARED(bf16, x, [2][kStep * kStride<kTile>]);
  const int column0 = blockIdx.x * kTile, slot0 = blockIdx.y * kTile, b = blockIdx.z;
  const Rows<const bf16> x_rows = a.x.of(b).from(0, column0);
  const Rows<const float> e_rows = a.e.from(0, slot0);
  const auto load = [&](int token0, int at) {
    const auto rank = [&](int i) { return token0 + i < a.tokens ? a.ranks.rank(b, token0 + i) : -1; };
    bf16_tiles::load_tile<kStep, kTile>(x[at], x_rows, a.width - column0,
                                        [&](int i) { return rank(i) < 0 ? -1 : token0 + i; });
    load_split<kStep, kTile>(e[at], e_rows, a.slots - slot0, rank);
  };
  float out[kTile / 8][4] = {};
  each_step(a.tokens, load, [&](int at) {
#pragma unroll
    for (int k = 0; k < kStep; k += 16) {
      for (int part = 0; part < 2; ++part) {
        std::uint32_t left[4];
        bf16_tiles::transposed_left_fragment<kTile>(left, e[at][part], k);
        bf16_tiles::add_rows<kTile>(out, left, x[at] + k * kStride<kTile>);
      }
    }
  });
  const float scale = a.ranks.scale(b), factor[2] = {scale, scale};
  bf16_tiles::store_tile<kTile>(a.y.of(b).from(slot0, column0), min(kTile, a.slots - slot0), a.width - column0, out,
                                factor);
}

/// dx: tile of 64 tokens (blockIdx.y) by 64 columns (blockIdx.x) of a sample, summed over slots.
static __global__ void __launch_bounds__(bf16_tiles::kThreads) low_rank_backward_x_bf16(LowRankOperands<bf16> a) {
  using namespace low_rank_tiles;
  CALD_SHARED(bf16, e, [2][2][kTile * kStride<kStep>]);
  CALD_SHARED(bf16, dy, [2][kStep * kStride<kTile>]);
  const int column0 = blockIdx.x * kTile, token0 = blockIdx.y * kTile, b = blockIdx.z;
  const Rows<const bf16> dy_rows = a.dy.of(b).from(0, column0);
  const auto load = [&](int slot0, int at) {
    bf16_tiles::load_tile<kStep, kTile>(dy[at], dy_rows, a.width - column0,
                                        [&](int i) { return slot0 + i < a.slots ? slot0 + i : -1; });
    load_split<kTile, kStep>(e[at], a.e.from(0, slot0), a.slots - slot0,
                             [&](int i) { return token0 + i < a.tokens ? a.ranks.rank(b, token0 + i) : -1; });
  };
  float out[kTile / 8][4] = {};
  each_step(a.slots, load, [&](int at) {
#pragma unroll
    for (int k = 0; k < kStep; k += 16) {
      for (int part = 0; part < 2; ++part) {
        std::uint32_t left[4];
        bf16_tiles::left_fragment<kStep>(left, e[at][part], k);
        bf16_tiles::add_rows<kTile>(out, left, dy[at] + k * kStride<kTile>);
      }
    }
  });
  const float scale = a.ranks.scale(b), factor[2] = {scale, scale};
  const int count = min(kTile, a.tokens - token0), columns = a.width - column0;
  if (a.dx_f32.rows.data)
    bf16_tiles::store_tile<kTile>(a.dx_f32.of(b).from(token0, column0), count, columns, out, factor);
  else
    bf16_tiles::store_tile<kTile>(a.dx.of(b).from(token0, column0), count, columns, out, factor);
}

/// de: tile of 64 positions (blockIdx.y) by 64 slots (blockIdx.x), a part of the sum over samples and columns.
static __global__ void __launch_bounds__(bf16_tiles::kThreads) low_rank_backward_e_bf16(LowRankOperands<bf16> a) {
  using namespace low_rank_tiles;
  CALD_SHARED(bf16, x, [2][kTile * kStride<kStep>]);
  CALD_SHARED(bf16, dy, [2][kTile * kStride<kStep>]);
  const int slot0 = blockIdx.x * kTile, position0 = blockIdx.y * kTile, mine = static_cast<int>(threadIdx.x);
  float out[kTile / 8][4] = {};
  for (SamplesOfPart part(a.batch, a.width); part.next();) {
    const std::int32_t* const tokens = a.token + static_cast<std::int64_t>(part.b) * a.positions + position0;
    const auto token = [&](int i) { return position0 + i < a.positions ? tokens[i] : -1; };
    if (!__syncthreads_or(mine < kTile && token(mine) >= 0)) continue;
    const auto load = [&](int step, int at) {
      const int column0 = part.begin + step;
      bf16_tiles::load_tile<kTile, kStep>(x[at], a.x.of(part.b).from(0, column0), a.width - column0, token);
      bf16_tiles::load_tile<kTile, kStep>(dy[at], a.dy.of(part.b).from(slot0, column0), a.width - column0,
                                          [&](int i) { return slot0 + i < a.slots ? i : -1; });
    };
    float sum[kTile / 8][4] = {};
    each_step(part.end - part.begin, load, [&](int at) {
#pragma unroll
      for (int k = 0; k < kStep; k += 16) {
        std::uint32_t left[4];
        bf16_tiles::left_fragment<kStep>(left, x[at], k);
        bf16_tiles::add_scores<kStep>(sum, left, dy[at], k);
      }
    });
    const float scale = a.ranks.scale(part.b);
#pragma unroll
    for (int i = 0; i < kTile / 2; ++i) out[i / 4][i % 4] += scale * sum[i / 4][i % 4];
  }
  Rows<float> de = a.de.of(blockIdx.z).from(position0, slot0);
  de.vectors = false;  // written once a block; the addresses of vectors as well would not fit the registers
  bf16_tiles::store_tile<kTile>(de, min(kTile, a.positions - position0), a.slots - slot0, out, {1, 1});
}

}  // namespace cald::cuda
