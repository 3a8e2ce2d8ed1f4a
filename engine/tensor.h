// Tensor: a value-type view on storage.
#pragma once
#include <memory>

#include "engine/base/tensor_ref.h"
#include "engine/storage.h"

namespace cald {

/// Copies are cheap and share the storage; nothing here copies elements. A default-constructed Tensor is absent and
/// stands for an optional operand that is not there.
///
/// A tensor that a Tape differentiates carries the number of its variable. Such a tensor is reshaped through the tape
/// (Tape::view), which knows how its gradient comes back.
class Tensor {
 public:
  Tensor() = default;
  Tensor(std::shared_ptr<Storage> storage, const Shape& shape, DType dtype, Packing packing = Packing::none)
      : storage_(std::move(storage)),
        shape_(shape),
        strides_(contiguous_strides(shape)),
        dtype_(dtype),
        packing_(packing) {}

  explicit operator bool() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  const Shape& strides() const { return strides_; }
  DType dtype() const { return dtype_; }
  Packing packing() const { return packing_; }
  int rank() const { return shape_.rank(); }
  std::int64_t dim(int i) const { return shape_[i]; }
  std::int64_t numel() const { return shape_.numel(); }
  std::int64_t cols() const { return ref().cols(); }
  std::int64_t rows() const { return ref().rows(); }
  std::size_t bytes() const {
    return packing_ == Packing::none ? static_cast<std::size_t>(numel()) * size_of(dtype_) : storage_->bytes;
  }

  /// Where the elements lie.
  Device device() const { return storage_->device(); }
  /// First element; null on the meta device.
  template <class T>
  T* data() const {
    return ref().as<T>();
  }
  TensorRef ref() const;
  operator TensorRef() const { return ref(); }

  /// The same elements under another shape; the tensor must be contiguous and not differentiated.
  Tensor view(const Shape& shape) const;
  /// Elements [begin, end) of dimension `dim`; not differentiated and not packed.
  Tensor narrow(int dim, std::int64_t begin, std::int64_t end) const;
  /// The same values, cut from the tape: gradients stop here.
  Tensor detach() const;
  /// True if no other tensor views this storage.
  bool owns_alone() const { return storage_.use_count() == 1; }

  /// Number of the variable on its tape, -1 if not differentiated.
  std::int32_t variable() const { return variable_; }

 private:
  friend class Tape;
  std::shared_ptr<Storage> storage_;
  std::int64_t offset_ = 0;  // elements
  Shape shape_, strides_;
  DType dtype_ = DType::f32;
  Packing packing_ = Packing::none;
  std::int32_t variable_ = -1;
};

}  // namespace cald
