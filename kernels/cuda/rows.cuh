// Tensors seen by rows, a warp for each: what LayerNorm and the losses share.
#pragma once
#include "engine/base/exec.h"
#include "engine/base/rng.h"
#include "engine/base/tensor_ref.h"
#include "kernels/cuda/check_launch.h"

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

/// Launches a kernel with a warp for each of `rows` rows.
template <class Kernel, class... Arguments>
void launch_rows(const Exec& exec, const char* name, Kernel kernel, std::int64_t rows, const Arguments&... arguments) {
  if (rows == 0) return;
  const dim3 grid(static_cast<unsigned>((rows + kWarpsOfBlock - 1) / kWarpsOfBlock));
  check_launch(name,
               launch(kernel, {grid, 32 * kWarpsOfBlock, 0, static_cast<cudaStream_t>(exec.stream)}, arguments...));
}

}  // namespace cald::cuda
