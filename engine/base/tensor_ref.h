// TensorRef: all that a kernel sees of a tensor.
#pragma once
#include "engine/base/dtype.h"
#include "engine/base/shape.h"

namespace cald {

/// How a weight (out, in) lies in memory: by its strides, or in a form of the backend's own that nothing but its
/// products read, for x W^T or for dy W.
enum class Packing : std::uint8_t { none, forward, backward };

/// A non-owning view: address, dtype, shape and strides (in elements). On the meta device `data` is null.
/// An absent optional operand is a default-constructed TensorRef.
struct TensorRef {
  void* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;
  Shape strides;
  bool present = false;
  Packing packing = Packing::none;

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  float* f32() const { return as<float>(); }
  std::int64_t dim(int i) const { return shape[i]; }
  std::int64_t numel() const { return shape.numel(); }
  /// Extent of the innermost dimension (1 for a scalar).
  std::int64_t cols() const { return shape.rank() ? shape[-1] : 1; }
  /// Product of all other extents.
  std::int64_t rows() const {
    std::int64_t n = 1;
    for (int i = 0; i + 1 < shape.rank(); ++i) n *= shape[i];
    return n;
  }
  /// Elements between two rows of the tensor seen as [rows, cols]; the dimensions above must be collapsible.
  std::int64_t row_stride() const { return shape.rank() >= 2 ? strides[-2] : cols(); }
  /// True if the tensor is [rows, cols] with unit stride inside a row and one stride between all rows.
  bool is_matrix() const {
    if (packing != Packing::none) return false;
    if (shape.rank() == 0) return true;
    if (cols() > 1 && strides[-1] != 1) return false;
    for (int i = shape.rank() - 3; i >= 0; --i)
      if (shape[i] > 1 && strides[i] != strides[i + 1] * shape[i + 1]) return false;
    return true;
  }
  bool is_contiguous() const {
    if (packing != Packing::none) return false;
    std::int64_t step = 1;
    for (int i = shape.rank() - 1; i >= 0; --i) {
      if (shape[i] > 1 && strides[i] != step) return false;
      step *= shape[i];
    }
    return true;
  }
};

}  // namespace cald
