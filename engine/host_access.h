// Tensors' elements from the host, on whatever device they lie: for what happens outside of steps.
#pragma once
#include <functional>

#include "engine/tensor.h"

namespace cald {

/// The contiguous tensor receives to.bytes() bytes. Nothing happens on the meta device.
void write_tensor(const Tensor& to, const void* from);
/// The host receives the contiguous tensor's from.bytes() bytes.
void read_tensor(const Tensor& from, void* to);

/// `fill` sets all elements of the contiguous f32 tensor: in place on the CPU, else in a copy that is then written.
/// Nothing happens on the meta device.
void fill_on_host(const Tensor& to, const std::function<void(float* values)>& fill);
/// `look` sees the elements of the contiguous f32 tensor.
void look_on_host(const Tensor& from, const std::function<void(const float* values)>& look);

}  // namespace cald
