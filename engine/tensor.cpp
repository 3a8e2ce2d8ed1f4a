#include "engine/tensor.h"

#include <string>

namespace cald {

TensorRef Tensor::ref() const {
  TensorRef r;
  if (!storage_) return r;
  r.present = true;
  r.dtype = dtype_;
  r.shape = shape_;
  r.strides = strides_;
  r.packing = packing_;
  if (storage_->data != nullptr)
    r.data = static_cast<std::byte*>(storage_->data) + static_cast<std::size_t>(offset_) * size_of(dtype_);
  return r;
}

Tensor Tensor::view(const Shape& shape) const {
  if (variable_ >= 0) throw Error("view: the tensor is differentiated, use Tape::view");
  if (shape.numel() != numel()) throw Error("view: shape " + shape_.str() + " does not hold as " + shape.str());
  if (!ref().is_contiguous()) throw Error("view: the tensor of shape " + shape_.str() + " is strided");
  Tensor t = *this;
  t.shape_ = shape;
  t.strides_ = contiguous_strides(shape);
  return t;
}

Tensor Tensor::narrow(int dim, std::int64_t begin, std::int64_t end) const {
  if (variable_ >= 0) throw Error("narrow: the tensor is differentiated, use Tape::narrow");
  if (packing_ != Packing::none) throw Error("narrow: the tensor of shape " + shape_.str() + " is packed");
  if (dim < 0) dim += rank();
  if (dim < 0 || dim >= rank() || begin < 0 || end < begin || end > shape_[dim])
    throw Error("narrow: [" + std::to_string(begin) + ", " + std::to_string(end) + ") of dimension " +
                std::to_string(dim) + " of " + shape_.str());
  Tensor t = *this;
  t.shape_[dim] = end - begin;
  t.offset_ += begin * strides_[dim];
  return t;
}

Tensor Tensor::detach() const {
  Tensor t = *this;
  t.variable_ = -1;
  return t;
}

}  // namespace cald
