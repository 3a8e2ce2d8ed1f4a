// Shapes and strides: small fixed arrays, so that neither a tensor nor a launch allocates for them.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "engine/base/error.h"

namespace cald {

inline constexpr int kMaxRank = 4;

/// Up to kMaxRank extents in elements, outermost first. An empty shape is a scalar (one element).
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims) {
    for (std::int64_t d : dims) push_back(d);
  }

  int rank() const { return rank_; }
  /// Extent of dimension i; negative i counts from the end, as in Python.
  std::int64_t operator[](int i) const { return dims_[static_cast<std::size_t>(i < 0 ? i + rank_ : i)]; }
  std::int64_t& operator[](int i) { return dims_[static_cast<std::size_t>(i < 0 ? i + rank_ : i)]; }
  void push_back(std::int64_t d) {
    if (rank_ == kMaxRank) throw Error("a shape has at most 4 dimensions");
    dims_[static_cast<std::size_t>(rank_++)] = d;
  }
  /// Number of elements.
  std::int64_t numel() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= (*this)[i];
    return n;
  }
  bool operator==(const Shape& o) const {
    if (rank_ != o.rank_) return false;
    for (int i = 0; i < rank_; ++i)
      if ((*this)[i] != o[i]) return false;
    return true;
  }

  /// "[8, 128, 384]"
  std::string str() const {
    std::string s = "[";
    for (int i = 0; i < rank_; ++i) s += (i ? ", " : "") + std::to_string((*this)[i]);
    return s + "]";
  }

 private:
  std::array<std::int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

/// Row-major strides in elements.
inline Shape contiguous_strides(const Shape& shape) {
  Shape s = shape;
  std::int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    s[i] = step;
    step *= shape[i];
  }
  return s;
}

}  // namespace cald
