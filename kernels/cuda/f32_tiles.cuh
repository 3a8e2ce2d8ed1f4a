// Tiles of f32 matrices in shared memory, and their products by plain multiply-adds: a block's 256 threads are 16 x 16,
// (ty, tx), over a tile of scores. Thread (ty, tx) owns rows ty * kR + r and columns tx * kC + c of it, and of an
// output tile the same rows and kHead / 16 columns.
//
// Tiles of rows have 4 floats of padding, so that 8 neighbouring rows begin in different banks. A tile that gives
// columns of scores has row j at place (j % kC) * 16 + j / kC: then the 16 threads of one ty read neighbouring places,
// and yet own neighbouring columns.
#pragma once
#include "kernels/cuda/convert.cuh"

namespace cald::cuda {

/// The rows of a matrix, from the first that is meant on.
template <class T>
struct Rows {
  T* data = nullptr;
  std::int64_t step = 0;
  bool vectors = false;  ///< every row begins and ends at multiples of 16 bytes
  bool add = false;      ///< results are added to what stands there

  __device__ T* row(int i) const { return data + i * step; }
  __device__ Rows from(int row0, int column0 = 0) const { return {row(row0) + column0, step, vectors, add}; }
};

}  // namespace cald::cuda

namespace cald::cuda::f32_tiles {

constexpr int kThreads = 256;

template <int kHead>
constexpr int kStride = kHead + 4;

__device__ __forceinline__ int thread_x() { return threadIdx.x % 16; }
__device__ __forceinline__ int thread_y() { return threadIdx.x / 16; }

template <int kC>
__device__ __forceinline__ constexpr int place_of(int row) {
  return kC == 1 ? row : row % kC * 16 + row / kC;
}

/// Loads kRows rows, row i being from.row(index(i)) and zero where index(i) < 0; zeros right of `columns`. kC = 1 keeps
/// the rows' order. kStep floats lie between two rows of the tile.
template <int kRows, int kColumns, int kC, int kStep = kStride<kColumns>, class T, class Index>
__device__ __forceinline__ void load_tile(float* tile, const Rows<const T>& from, int columns, const Index& index) {
  constexpr int kEach = kColumns / 4;
  if (std::is_same_v<T, float> && from.vectors) {
    for (int i = threadIdx.x; i < kRows * kEach; i += kThreads) {
      const int row = i / kEach, column = i % kEach * 4, at = index(row);
      float4 x{0, 0, 0, 0};
      if (at >= 0 && column < columns) x = load_vector<float4>(from.row(at) + column);
      store_vector(tile + place_of<kC>(row) * kStep + column, x);
    }
  } else {
    for (int i = threadIdx.x; i < kRows * kColumns; i += kThreads) {
      const int row = i / kColumns, column = i % kColumns, at = index(row);
      tile[place_of<kC>(row) * kStep + column] = at >= 0 && column < columns ? widen(from.row(at)[column]) : 0.0f;
    }
  }
}
/// The first `count` rows.
template <int kRows, int kColumns, int kC, class T>
__device__ __forceinline__ void load_tile(float* tile, const Rows<const T>& from, int count, int columns) {
  load_tile<kRows, kColumns, kC>(tile, from, columns, [count](int row) { return row < count ? row : -1; });
}

/// s[r][c] = sum over the head's features, in their order, of row r times column c.
template <int kHead, int kR, int kC>
__device__ __forceinline__ void scores(const float* rows, const float* columns, float (&s)[kR][kC]) {
  rows += thread_y() * kR * kStride<kHead>;
  columns += thread_x() * kStride<kHead>;
#pragma unroll
  for (int r = 0; r < kR; ++r)
#pragma unroll
    for (int c = 0; c < kC; ++c) s[r][c] = 0;
#pragma unroll 2
  for (int d = 0; d < kHead; d += 4) {
    float4 a[kR], b[kC];
#pragma unroll
    for (int r = 0; r < kR; ++r) a[r] = load_vector<float4>(rows + r * kStride<kHead> + d);
#pragma unroll
    for (int c = 0; c < kC; ++c) b[c] = load_vector<float4>(columns + c * 16 * kStride<kHead> + d);
#pragma unroll
    for (int r = 0; r < kR; ++r)
#pragma unroll
      for (int c = 0; c < kC; ++c) {
        s[r][c] += a[r].x * b[c].x;
        s[r][c] += a[r].y * b[c].y;
        s[r][c] += a[r].z * b[c].z;
        s[r][c] += a[r].w * b[c].w;
      }
  }
}

/// Thread (ty, tx) owns these columns of a row of the head: groups of kVector neighbours, 16 kVector apart.
template <int kHead>
struct OutputColumns {
  static constexpr int kVector = kHead % 64 == 0 ? 4 : kHead % 32 == 0 ? 2 : 1;
  static constexpr int kCount = kHead / 16;
  __device__ static int first() { return thread_x() * kVector; }
  __device__ static int column(int i) { return first() + i / kVector * 16 * kVector + i % kVector; }
};

/// kVector floats by one access.
template <int kVector>
__device__ __forceinline__ void read_floats(const float* from, float* to) {
  if constexpr (kVector == 4) {
    const auto x = load_vector<float4>(from);
    to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
  } else if constexpr (kVector == 2) {
    const auto x = load_vector<float2>(from);
    to[0] = x.x, to[1] = x.y;
  } else {
    to[0] = *from;
  }
}
template <int kVector>
__device__ __forceinline__ void write_floats(float* to, const float* from) {
  if constexpr (kVector == 4)
    store_vector(to, float4{from[0], from[1], from[2], from[3]});
  else if constexpr (kVector == 2)
    store_vector(to, float2{from[0], from[1]});
  else
    *to = from[0];
}

/// out += w (kR rows of this thread, kColumns) times a tile of kColumns rows that lie at place_of<kC>.
template <int kHead, int kColumns, int kR>
__device__ __forceinline__ void add_product(const float* w, const float* tile, float (&out)[kR][kHead / 16]) {
  using Columns = OutputColumns<kHead>;
  constexpr int kC = kColumns / 16, kVector = Columns::kVector;
  w += thread_y() * kR * kColumns;
  tile += Columns::first();
#pragma unroll 1
  for (int j = 0; j < kColumns; j += 4) {
    float weight[kR][4];
#pragma unroll
    for (int r = 0; r < kR; ++r) read_floats<4>(w + r * kColumns + j, weight[r]);
#pragma unroll
    for (int u = 0; u < 4; ++u) {
      const float* row = tile + (j / kC + u / kC + u % kC * 16) * kStride<kHead>;
#pragma unroll
      for (int i = 0; i < Columns::kCount; i += kVector) {
        float x[kVector];
        read_floats<kVector>(row + i * 16, x);
#pragma unroll
        for (int r = 0; r < kR; ++r)
#pragma unroll
          for (int v = 0; v < kVector; ++v) out[r][i + v] += weight[r][u] * x[v];
      }
    }
  }
}

/// This thread's part of a tile of weights (rows, kColumns) for add_product.
template <int kR, int kC>
__device__ __forceinline__ void store_weights(float* w, const float (&p)[kR][kC]) {
#pragma unroll
  for (int r = 0; r < kR; ++r) write_floats<kC>(w + (thread_y() * kR + r) * kC * 16 + thread_x() * kC, p[r]);
}

/// Writes factor[r] * out[r] to the first `count` rows, or adds it to what stands there.
template <int kHead, class T, int kR>
__device__ __forceinline__ void store_tile(const Rows<T>& to, int count, int columns,
                                           const float (&out)[kR][kHead / 16], const float (&factor)[kR]) {
  using Columns = OutputColumns<kHead>;
  constexpr int kVector = Columns::kVector;
#pragma unroll
  for (int r = 0; r < kR; ++r) {
    const int row = thread_y() * kR + r;
    if (row >= count) continue;
    T* const at = to.row(row);
#pragma unroll
    for (int i = 0; i < Columns::kCount; i += kVector) {
      const int column = Columns::column(i);
      float x[kVector];
#pragma unroll
      for (int v = 0; v < kVector; ++v) x[v] = out[r][i + v] * factor[r];
      if constexpr (std::is_same_v<T, float>) {
        if (to.vectors && column < columns) {
          float old[kVector] = {};
          if (to.add) read_floats<kVector>(at + column, old);
#pragma unroll
          for (int v = 0; v < kVector; ++v) x[v] += old[v];
          write_floats<kVector>(at + column, x);
          continue;
        }
      }
#pragma unroll
      for (int v = 0; v < kVector; ++v)
        if (column + v < columns) at[column + v] = narrow_to<T>(to.add ? widen(at[column + v]) + x[v] : x[v]);
    }
  }
}

}  // namespace cald::cuda::f32_tiles
