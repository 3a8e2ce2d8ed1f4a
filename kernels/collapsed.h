// The dimensions of K tensors of one shape, with neighbours joined where they lie behind one another in all of them.
#pragma once
#include <array>
#include <cstdint>

#include "engine/base/tensor_ref.h"

namespace cald {

template <std::size_t K>
struct Collapsed {
  using Offsets = std::array<std::int64_t, K>;

  std::int64_t size;     ///< elements
  std::size_t rank = 0;  ///< at least 1; the last dimension is the innermost
  std::array<std::int64_t, kMaxRank + 1> extents{};
  std::array<Offsets, kMaxRank + 1> steps{};

  /// With `unit_stride` the last dimension has stride 1 in every tensor (in the worst case its extent is 1).
  Collapsed(const std::array<TensorRef, K>& tensors, bool unit_stride) : size(tensors[0].numel()) {
    const Shape& shape = tensors[0].shape;
    for (int d = 0; d < shape.rank(); ++d) {
      if (shape[d] == 1) continue;
      Offsets step;
      for (std::size_t k = 0; k < K; ++k) step[k] = tensors[k].strides[d];
      push(shape[d], step);
    }
    Offsets ones;
    ones.fill(1);
    if (rank == 0 || (unit_stride && steps[rank - 1] != ones)) push_apart(1, ones);
  }

 private:
  void push(std::int64_t extent, const Offsets& step) {
    if (rank > 0) {
      Offsets whole = step;
      for (std::int64_t& s : whole) s *= extent;
      if (steps[rank - 1] == whole) {
        extents[rank - 1] *= extent;
        steps[rank - 1] = step;
        return;
      }
    }
    push_apart(extent, step);
  }
  void push_apart(std::int64_t extent, const Offsets& step) {
    extents[rank] = extent;
    steps[rank++] = step;
  }
};

}  // namespace cald
