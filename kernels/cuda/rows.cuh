// Tensors seen by rows, a warp for each: what LayerNorm, the losses and the embedding's look-up share.
#pragma once
#include "engine/base/exec.h"
#include "engine/base/rng.h"
#include "kernels/cuda/check_launch.h"
#include "kernels/cuda/convert.cuh"
#include "kernels/cuda/two_float.cuh"
#include "kernels/cuda/vectors.cuh"

namespace cald::cuda {

constexpr int kWarpsOfBlock = 4;

__device__ __forceinline__ int lane() { return threadIdx.x % 32; }
/// The warp's row.
__device__ __forceinline__ std::int64_t warp_row() {
  return std::int64_t{blockIdx.x} * kWarpsOfBlock + threadIdx.x / 32;
}

/// Where the i-th index of some leading dimensions, in row-major order, lies.
struct Leading {
  static constexpr int kMost = kMaxRank;
  int dims = 0;
  std::int64_t extents[kMost], steps[kMost];

  __device__ std::int64_t at(std::int64_t i) const {
    std::int64_t offset = 0;
#pragma unroll
    for (int d = kMost - 1; d >= 0; --d) {
      if (d >= dims) continue;
      offset += i % extents[d] * steps[d];
      i /= extents[d];
    }
    return offset;
  }
};
inline Leading leading(const TensorRef& t, int dims) {
  Leading l;
  l.dims = dims;
  for (int d = 0; d < dims; ++d) l.extents[d] = t.shape[d], l.steps[d] = t.strides[d];
  return l;
}

/// The rows of a tensor; null: absent.
template <class T>
struct TensorRows {
  T* data = nullptr;
  Leading rows;

  __device__ T* row(std::int64_t i) const { return data ? data + rows.at(i) : nullptr; }
};
template <class T>
TensorRows<T> tensor_rows(const TensorRef& t) {
  if (!t.present) return {};
  return {t.as<std::remove_const_t<T>>(), leading(t, t.shape.rank() - 1)};
}

/// How the elements of rows are moved.
struct RowLayout {
  static constexpr int kVector = 4;
  int n = 0;             ///< elements
  bool vectors = false;  ///< by kVector at a time, which divides n, and every row begins at an address that allows it
};
inline bool has_vector_rows(const TensorRef& t) {
  bool vectors = begins_with_vector(t, RowLayout::kVector);
  for (int d = 0; d + 1 < t.shape.rank(); ++d)
    vectors = vectors && (t.shape[d] == 1 || t.strides[d] % RowLayout::kVector == 0);
  return vectors;
}
/// Of rows of n elements with unit stride in all these tensors, of which some may be absent.
template <class... T>
RowLayout row_layout(std::int64_t n, const T&... tensors) {
  return {static_cast<int>(n), n % RowLayout::kVector == 0 && ((!tensors.present || has_vector_rows(tensors)) && ...)};
}

template <int N>
struct Width {
  static constexpr int value = N;
};

/// Calls fn(i, Width<N>()) for the lane's parts of a row: N neighbours from i on. Each pass over a row gives a lane the
/// same elements.
template <class Fn>
__device__ __forceinline__ void each_part(const RowLayout& row, const Fn& fn) {
  constexpr int N = RowLayout::kVector;
  if (row.vectors)
    for (int i = lane() * N; i < row.n; i += 32 * N) fn(i, Width<N>());
  else
    for (int i = lane(); i < row.n; i += 32) fn(i, Width<1>());
}

/// A row to read, widened to f32; without data, as if it were `absent` throughout.
template <class T>
struct Row {
  const T* data;
  float absent = 0;

  template <int N>
  __device__ __forceinline__ Elements<float, N> load(int i) const {
    if (!data) return elements<N>([&](int) { return absent; });
    const auto x = load_elements<N>(data + i);
    return elements<N>([&](int k) { return widen(x.x[k]); });
  }
};
template <class T>
Row(const T*) -> Row<T>;
template <class T>
Row(const T*, float) -> Row<T>;

/// Sets N elements or adds to them.
template <int N, class T>
__device__ __forceinline__ void write(T* to, const Elements<float, N>& values, bool add) {
  Elements<T, N> old{};
  if (add) old = load_elements<N>(to);
  store_elements<N>(
      to, elements<N>([&](int k) { return narrow_to<T>(add ? widen(old.x[k]) + values.x[k] : values.x[k]); }));
}

template <int N, class Fn, class... E>
__device__ __forceinline__ Elements<float, N> apply(int i, const Fn& fn, const E&... loaded) {
  return elements<N>([&](int k) { return fn(i + k, loaded.x[k]...); });
}

/// row `to` (set or add) = fn(i, element i of each of `rows`), which have load<N>(i) as Row has.
template <class T, class Fn, class... Rows>
__device__ __forceinline__ void write_row(const RowLayout& row, T* to, bool add, const Fn& fn, const Rows&... rows) {
  each_part(row, [&](int i, auto width) {
    constexpr int N = decltype(width)::value;
    write<N>(to + i, apply<N>(i, fn, rows.template load<N>(i)...), add);
  });
}

/// Calls fn(i, element i of each of `rows`) for the lane's elements.
template <class Fn, class... Rows>
__device__ __forceinline__ void each_of_row(const RowLayout& row, const Fn& fn, const Rows&... rows) {
  each_part(row, [&](int i, auto width) {
    constexpr int N = decltype(width)::value;
    const auto call = [&](const auto&... loaded) {
#pragma unroll
      for (int k = 0; k < N; ++k) fn(i + k, loaded.x[k]...);
    };
    call(rows.template load<N>(i)...);
  });
}

/// The sum of fn(i, element i of each of `rows`), in every lane.
template <class Fn, class... Rows>
__device__ __forceinline__ float sum_of_row(const RowLayout& row, const Fn& fn, const Rows&... rows) {
  float sum = 0;
  each_of_row(
      row, [&](int i, auto... x) { sum += fn(i, x...); }, rows...);
  return warp_sum(sum);
}

/// Launches a kernel with a warp for each of `rows` rows.
template <class Kernel, class... Arguments>
void launch_rows(const Exec& exec, const char* name, Kernel kernel, std::int64_t rows, const Arguments&... arguments) {
  if (rows == 0) return;
  const dim3 grid(static_cast<unsigned>((rows + kWarpsOfBlock - 1) / kWarpsOfBlock));
  check_launch(name,
               launch(kernel, {grid, 32 * kWarpsOfBlock, 0, static_cast<cudaStream_t>(exec.stream)}, arguments...));
}

}  // namespace cald::cuda
