// Tiles of bf16 matrices in shared memory and their products by tensor cores (mma.m16n8k16, f32 sums). A block is four
// warps; warp w owns rows 16 w .. 16 w + 15. With g = lane / 4 and t = lane % 4, value e of a 16x8 fragment is its
// element (g + e / 2 * 8, 2 t + e % 2).
//
// A row of a tile has 8 elements of padding: an odd number of 16-byte pieces, so that the 8 rows of an 8x8 matrix lie
// in different banks.
#pragma once
#include "kernels/cuda/f32_tiles.cuh"

namespace cald::cuda::bf16_tiles {

constexpr int kThreads = 128, kRows = 64;

template <int kHead>
constexpr int kStride = kHead + 8;

__device__ __forceinline__ int lane() { return threadIdx.x % 32; }
__device__ __forceinline__ int warp_row() { return threadIdx.x / 32 * 16; }
/// Rows of the tile of this thread's values 0, 1 and 2, 3.
__device__ __forceinline__ int value_row(int half) { return warp_row() + lane() / 4 + half * 8; }
/// Column within a fragment of this thread's values 0 and 2.
__device__ __forceinline__ int value_column() { return lane() % 4 * 2; }

__device__ __forceinline__ std::uint32_t pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  std::uint32_t bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}

/// Starts loading rows, row i being from.row(index(i)) and zero where index(i) < 0; zeros right of `columns`. Unless
/// the rows can be moved by 16 bytes the elements are copied at once.
template <int kTileRows, int kHead, class Index>
__device__ __forceinline__ void load_tile(bf16* tile, const Rows<const bf16>& from, int columns, const Index& index) {
  constexpr int kEach = kHead / 8;
  if (from.vectors) {
    for (int i = threadIdx.x; i < kTileRows * kEach; i += kThreads) {
      const int row = i / kEach, column = i % kEach * 8, at = index(row);
      const bool valid = at >= 0 && column < columns;
      cp_async16(tile + row * kStride<kHead> + column, valid ? from.row(at) + column : from.data, valid);
    }
  } else {
    for (int i = threadIdx.x; i < kTileRows * kHead; i += kThreads) {
      const int row = i / kHead, column = i % kHead, at = index(row);
      const bool valid = at >= 0 && column < columns;
      tile[row * kStride<kHead> + column] = valid ? from.row(at)[column] : __float2bfloat16(0.0f);
    }
  }
}
/// The first `count` rows.
template <int kTileRows, int kHead>
__device__ __forceinline__ void load_tile(bf16* tile, const Rows<const bf16>& from, int count, int columns) {
  load_tile<kTileRows, kHead>(tile, from, columns, [count](int row) { return row < count ? row : -1; });
}

/// The warp's 16 rows, features k .. k + 15, as a left operand.
template <int kHead>
__device__ __forceinline__ void left_fragment(std::uint32_t (&a)[4], const bf16* tile, int k) {
  ldmatrix<4>(a, tile + (warp_row() + lane() % 16) * kStride<kHead> + k + lane() / 16 * 8);
}

/// The same of a matrix that lies transposed: the warp's 16 columns of the tile, its rows k .. k + 15.
template <int kHead>
__device__ __forceinline__ void transposed_left_fragment(std::uint32_t (&a)[4], const bf16* tile, int k) {
  ldmatrix<4, true>(a, tile + (k + lane() / 16 * 8 + lane() % 8) * kStride<kHead> + warp_row() + lane() / 8 % 2 * 8);
}

/// out += left (16 rows by 16) times the first 16 rows of a tile.
template <int kHead>
__device__ __forceinline__ void add_rows(float (&out)[kHead / 8][4], const std::uint32_t (&left)[4], const bf16* tile) {
#pragma unroll
  for (int d = 0; d < kHead / 8; d += 2) {
    std::uint32_t b[4];
    ldmatrix<4, true>(b, tile + lane() % 16 * kStride<kHead> + d * 8 + lane() / 16 * 8);
    const std::uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
    mma_bf16_16x8x16(out[d], left, first);
    mma_bf16_16x8x16(out[d + 1], left, second);
  }
}

/// s += left (16 features from k on) times the transpose of a tile whose rows are the columns of s.
template <int kHead, int kFragments>
__device__ __forceinline__ void add_scores(float (&s)[kFragments][4], const std::uint32_t (&left)[4],
                                           const bf16* columns, int k) {
#pragma unroll
  for (int n = 0; n < kFragments; n += 2) {
    std::uint32_t b[4];
    ldmatrix<4>(b, columns + (n * 8 + lane() / 16 * 8 + lane() % 8) * kStride<kHead> + k + lane() / 8 % 2 * 8);
    const std::uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
    mma_bf16_16x8x16(s[n], left, first);
    mma_bf16_16x8x16(s[n + 1], left, second);
  }
}

/// s = the warp's rows times the columns' tile, over all features.
template <int kHead, int kFragments>
__device__ __forceinline__ void scores(float (&s)[kFragments][4], const bf16* rows, const bf16* columns) {
#pragma unroll
  for (int n = 0; n < kFragments; ++n) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll
  for (int k = 0; k < kHead; k += 16) {
    std::uint32_t left[4];
    left_fragment<kHead>(left, rows, k);
    add_scores<kHead>(s, left, columns, k);
  }
}

/// out += w (16 rows by 8 kFragments columns, rounded to bf16) times a tile with a row for each column of w.
template <int kHead, int kFragments>
__device__ __forceinline__ void add_product(float (&out)[kHead / 8][4], const float (&w)[kFragments][4],
                                            const bf16* tile) {
#pragma unroll
  for (int n = 0; n < kFragments; n += 2) {
    const std::uint32_t left[4] = {pack(w[n][0], w[n][1]), pack(w[n][2], w[n][3]), pack(w[n + 1][0], w[n + 1][1]),
                                   pack(w[n + 1][2], w[n + 1][3])};
    add_rows<kHead>(out, left, tile + n * 8 * kStride<kHead>);
  }
}

/// Writes factor[half] * out to the first `count` rows, or adds it to what stands there.
template <int kHead, class T>
__device__ __forceinline__ void store_tile(const Rows<T>& to, int count, int columns, const float (&out)[kHead / 8][4],
                                           const float (&factor)[2]) {
  constexpr bool kFloat = sizeof(T) == 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = value_row(half);
    if (row >= count) continue;
    T* const at = to.row(row);
#pragma unroll
    for (int d = 0; d < kHead / 8; ++d) {
      const int column = d * 8 + value_column();
      float x[2] = {out[d][half * 2] * factor[half], out[d][half * 2 + 1] * factor[half]};
      if (to.vectors && column < columns) {
        if constexpr (kFloat) {
          const auto old = to.add ? load_vector<float2>(at + column) : float2{0, 0};
          store_vector(at + column, float2{old.x + x[0], old.y + x[1]});
        } else {
          if (to.add) {
            const auto old = load_vector<std::uint32_t>(at + column);
            x[0] += __uint_as_float(old << 16), x[1] += __uint_as_float(old & 0xffff0000u);
          }
          store_vector(at + column, pack(x[0], x[1]));
        }
      } else {
#pragma unroll
        for (int v = 0; v < 2; ++v) {
          if (column + v >= columns) continue;
          T& element = at[column + v];
          if constexpr (kFloat)
            element = to.add ? element + x[v] : x[v];
          else
            element = __float2bfloat16(to.add ? __bfloat162float(element) + x[v] : x[v]);
        }
      }
    }
  }
}

}  // namespace cald::cuda::bf16_tiles
