// One function over the elements of K tensors of one shape, whatever their strides.
//
// Device memory: each tensor once, and what is added to once more.
#pragma once
#include <algorithm>

#include "engine/base/exec.h"
#include "kernels/collapsed.h"
#include "kernels/cuda/check_launch.h"

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

constexpr int kWalkUnroll = 4;  ///< elements of a thread: enough loads in flight to fill the memory's latency

template <int K, class Fn>
static __global__ void __launch_bounds__(256) walk_elements(Walk<K> w, Fn fn) {
  for (std::int64_t row = blockIdx.y; row < w.rows; row += gridDim.y) {
    std::int64_t first[K];
    w.row_offsets(row, first);
#pragma unroll
    for (int u = 0; u < kWalkUnroll; ++u) {
      const std::int64_t i = (std::int64_t{blockIdx.x} * kWalkUnroll + u) * blockDim.x + threadIdx.x;
      if (i >= w.inner) continue;
      std::int64_t at[K];
#pragma unroll
      for (int k = 0; k < K; ++k) at[k] = first[k] + i * w.inner_steps[k];
      fn(at);
    }
  }
}

/// Runs fn(offsets of one element in each of the tensors) for every element. Fn is copied to the device bytewise.
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
  const auto threads = static_cast<unsigned>(std::min<std::int64_t>(256, (w.inner + 31) / 32 * 32));
  const std::int64_t each = std::int64_t{threads} * kWalkUnroll;
  const dim3 grid(static_cast<unsigned>((w.inner + each - 1) / each),
                  static_cast<unsigned>(std::min<std::int64_t>(w.rows, 65535)));
  check_launch(name, launch(walk_elements<K, Fn>, {grid, threads, 0, static_cast<cudaStream_t>(exec.stream)}, w, fn));
}

}  // namespace cald::cuda
