// One function over the elements of K tensors of one shape, whatever their strides.
//
// Device memory: each tensor once, and what is added to once more.
#pragma once
#include <algorithm>

#include "engine/base/exec.h"
#include "kernels/collapsed.h"
#include "kernels/cuda/check_launch.h"
#include "kernels/cuda/vectors.cuh"

namespace cald::cuda {

template <int K>
struct Walk {
  int outer;                       ///< dimensions but the innermost
  std::int64_t rows, inner;        ///< elements are rows * inner
  std::int64_t extents[kMaxRank];  ///< of the outer dimensions
  std::int64_t steps[kMaxRank][K];
  std::int64_t inner_steps[K];

  /// Where the tensors' elements of row `row` begin.
  __device__ void row_offsets(std::int64_t row, std::int64_t (&at)[K]) const {
#pragma unroll
    for (int k = 0; k < K; ++k) at[k] = 0;
#pragma unroll
    for (int d = kMaxRank - 1; d >= 0; --d) {
      if (d >= outer) continue;
      const std::int64_t index = row % extents[d];
      row /= extents[d];
#pragma unroll
      for (int k = 0; k < K; ++k) at[k] += index * steps[d][k];
    }
  }
};

/// Elements of a thread: enough loads in flight to fill the memory's latency. A vector is as many by itself.
template <int N>
constexpr int kWalkUnroll = N == 1 ? 4 : 1;

/// N > 1: every row begins at a multiple of N elements in all tensors, which have stride 1 within it.
template <int K, int N, class Fn>
static __global__ void __launch_bounds__(256) walk_elements(Walk<K> w, Fn fn) {
  for (std::int64_t row = blockIdx.y; row < w.rows; row += gridDim.y) {
    std::int64_t first[K];
    w.row_offsets(row, first);
#pragma unroll
    for (int u = 0; u < kWalkUnroll<N>; ++u) {
      std::int64_t i = ((std::int64_t{blockIdx.x} * kWalkUnroll<N> + u) * blockDim.x + threadIdx.x) * N;
      std::int64_t at[K];
#pragma unroll
      for (int k = 0; k < K; ++k) at[k] = first[k] + i * (N == 1 ? w.inner_steps[k] : 1);
      if (i + N <= w.inner) {
        fn.template apply<N>(at);
        continue;
      }
#pragma unroll 1
      for (; i < w.inner; ++i) {  // less than a vector at the end of a row
        fn.template apply<1>(at);
#pragma unroll
        for (int k = 0; k < K; ++k) ++at[k];
      }
    }
  }
}

template <int N, int K, class Fn>
void launch_walk(const Exec& exec, const char* name, const Walk<K>& w, const Fn& fn) {
  const std::int64_t vectors = (w.inner + N - 1) / N;
  const auto threads = static_cast<unsigned>(std::min<std::int64_t>(256, (vectors + 31) / 32 * 32));
  const std::int64_t each = std::int64_t{threads} * kWalkUnroll<N>;
  const dim3 grid(static_cast<unsigned>((vectors + each - 1) / each),
                  static_cast<unsigned>(std::min<std::int64_t>(w.rows, 65535)));
  check_launch(name,
               launch(walk_elements<K, N, Fn>, {grid, threads, 0, static_cast<cudaStream_t>(exec.stream)}, w, fn));
}

/// Runs fn.apply<N>(offsets of N neighbouring elements in each of the tensors) for all elements, by Fn::kVector where
/// the layout has them at aligned addresses, else one by one. Fn is copied to the device bytewise.
template <int K, class Fn>
void walk(const Exec& exec, const char* name, const std::array<TensorRef, K>& tensors, const Fn& fn) {
  const Collapsed<K> dims(tensors, false);
  if (dims.size == 0) return;
  Walk<K> w{};
  w.outer = static_cast<int>(dims.rank) - 1;
  w.inner = dims.extents[dims.rank - 1];
  w.rows = dims.size / w.inner;
  for (int d = 0; d < w.outer; ++d) {
    w.extents[d] = dims.extents[static_cast<std::size_t>(d)];
    for (int k = 0; k < K; ++k) w.steps[d][k] = dims.steps[static_cast<std::size_t>(d)][static_cast<std::size_t>(k)];
  }
  for (int k = 0; k < K; ++k) w.inner_steps[k] = dims.steps[dims.rank - 1][static_cast<std::size_t>(k)];
  constexpr int kVector = Fn::kVector;
  bool vectors = true;
  for (int k = 0; k < K; ++k) {
    vectors = vectors && w.inner_steps[k] == 1 && begins_with_vector(tensors[static_cast<std::size_t>(k)], kVector);
    for (int d = 0; d < w.outer; ++d) vectors = vectors && w.steps[d][k] % kVector == 0;
  }
  vectors ? launch_walk<kVector>(exec, name, w, fn) : launch_walk<1>(exec, name, w, fn);
}

}  // namespace cald::cuda
