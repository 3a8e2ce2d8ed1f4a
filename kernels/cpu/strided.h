// Tensors of one shape with any strides, walked together.
#pragma once
#include <algorithm>
#include <cstdint>

#include "kernels/collapsed.h"
#include "kernels/cpu/parallel.h"

namespace cald {

/// Splits the elements of K tensors of equal shape into segments along which each has one stride. Dimensions that lie
/// behind each other in all of them are merged, so that contiguous tensors are a single segment.
template <std::size_t K>
class Walk {
 public:
  using Offsets = typename Collapsed<K>::Offsets;

  /// With `unit_stride` the segments have stride 1 in every tensor (in the worst case they are single elements).
  Walk(const std::array<TensorRef, K>& tensors, bool unit_stride) : dims_(tensors, unit_stride) {}

  std::int64_t size() const { return dims_.size; }
  /// Stride inside a segment of tensor k.
  std::int64_t stride(std::size_t k) const { return dims_.steps[dims_.rank - 1][k]; }

  /// Calls fn(offsets of the K first elements, n) for the segments of elements [begin, end) in row-major order.
  template <class Fn>
  void range(std::int64_t begin, std::int64_t end, const Fn& fn) const {
    const std::int64_t inner = dims_.extents[dims_.rank - 1];
    while (begin < end) {
      const std::int64_t first = begin % inner, n = std::min(inner - first, end - begin);
      Offsets at;
      for (std::size_t k = 0; k < K; ++k) at[k] = first * stride(k);
      std::int64_t row = begin / inner;
      for (std::size_t d = dims_.rank - 1; d-- > 0;) {
        const std::int64_t index = row % dims_.extents[d];
        row /= dims_.extents[d];
        for (std::size_t k = 0; k < K; ++k) at[k] += index * dims_.steps[d][k];
      }
      fn(at, n);
      begin += n;
    }
  }

  /// The same for all elements, on exec's threads.
  template <class Fn>
  void each(const Exec& exec, const Fn& fn) const {
    constexpr std::int64_t kBlock = 1024, kGrain = 8;  // parts end at cache lines; 8192 elements are worth a thread
    parallel_for(exec, (dims_.size + kBlock - 1) / kBlock, kGrain, [&](std::int64_t first, std::int64_t last) {
      range(first * kBlock, std::min(last * kBlock, dims_.size), fn);
    });
  }

 private:
  Collapsed<K> dims_;
};

}  // namespace cald
