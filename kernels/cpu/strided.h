// Tensors of one shape with any strides, walked together.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>

#include "engine/base/tensor_ref.h"
#include "kernels/cpu/parallel.h"

namespace cald {

/// Splits the elements of K tensors of equal shape into segments along which each has one stride. Dimensions that lie
/// behind each other in all of them are merged, so that contiguous tensors are a single segment.
template <std::size_t K>
class Walk {
 public:
  using Offsets = std::array<std::int64_t, K>;

  /// With `unit_stride` the segments have stride 1 in every tensor (in the worst case they are single elements).
  Walk(const std::array<TensorRef, K>& tensors, bool unit_stride) : size_(tensors[0].numel()) {
    const Shape& shape = tensors[0].shape;
    for (int d = 0; d < shape.rank(); ++d) {
      if (shape[d] == 1) continue;
      Offsets step;
      for (std::size_t k = 0; k < K; ++k) step[k] = tensors[k].strides[d];
      push(shape[d], step);
    }
    Offsets ones;
    ones.fill(1);
    if (rank_ == 0 || (unit_stride && steps_[rank_ - 1] != ones)) push_apart(1, ones);
  }

  std::int64_t size() const { return size_; }
  /// Stride inside a segment of tensor k.
  std::int64_t stride(std::size_t k) const { return steps_[rank_ - 1][k]; }

  /// Calls fn(offsets of the K first elements, n) for the segments of elements [begin, end) in row-major order.
  template <class Fn>
  void range(std::int64_t begin, std::int64_t end, const Fn& fn) const {
    const std::int64_t inner = extents_[rank_ - 1];
    while (begin < end) {
      const std::int64_t first = begin % inner, n = std::min(inner - first, end - begin);
      Offsets at;
      for (std::size_t k = 0; k < K; ++k) at[k] = first * stride(k);
      std::int64_t row = begin / inner;
      for (std::size_t d = rank_ - 1; d-- > 0;) {
        const std::int64_t index = row % extents_[d];
        row /= extents_[d];
        for (std::size_t k = 0; k < K; ++k) at[k] += index * steps_[d][k];
      }
      fn(at, n);
      begin += n;
    }
  }

  /// The same for all elements, on exec's threads.
  template <class Fn>
  void each(const Exec& exec, const Fn& fn) const {
    constexpr std::int64_t kBlock = 1024, kGrain = 8;  // parts end at cache lines; 8192 elements are worth a thread
    parallel_for(exec, (size_ + kBlock - 1) / kBlock, kGrain, [&](std::int64_t first, std::int64_t last) {
      range(first * kBlock, std::min(last * kBlock, size_), fn);
    });
  }

 private:
  void push(std::int64_t extent, const Offsets& step) {
    if (rank_ > 0) {
      Offsets whole = step;
      for (std::int64_t& s : whole) s *= extent;
      if (steps_[rank_ - 1] == whole) {
        extents_[rank_ - 1] *= extent;
        steps_[rank_ - 1] = step;
        return;
      }
    }
    push_apart(extent, step);
  }
  void push_apart(std::int64_t extent, const Offsets& step) {
    extents_[rank_] = extent;
    steps_[rank_++] = step;
  }

  std::int64_t size_;
  std::size_t rank_ = 0;
  std::array<std::int64_t, kMaxRank + 1> extents_{};
  std::array<Offsets, kMaxRank + 1> steps_{};
};

}  // namespace cald
