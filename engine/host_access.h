// Tensors' elements from the host, on whatever device they lie: for what happens outside of steps.
#pragma once
#include <functional>

#include "engine/tensor.h"

namespace cald {

/// The contiguous tensor receives to.bytes() bytes. Nothing happens on the meta device.
void write_tensor(const Tensor& to, const void* from);
/// The host receives the contiguous tensor's from.bytes() bytes.
void read_tensor(const Tensor& from, void* to);

/// `fill` sets all bytes of the contiguous tensor: in place on the CPU, else in a copy that is then written. Nothing
/// happens on the meta device.
void fill_bytes_on_host(const Tensor& to, const std::function<void(void* bytes)>& fill);
/// `look` sees the contiguous tensor's bytes.
void look_at_bytes_on_host(const Tensor& from, const std::function<void(const void* bytes)>& look);

/// `fill` sets all elements of the tensor, contiguous or packed, as f32; one in bf16 receives them rounded to nearest
/// even.
void fill_on_host(const Tensor& to, const std::function<void(float* values)>& fill);
/// The same from values that are there.
void write_floats(const Tensor& to, const float* values);
/// `look` sees those of a contiguous f32 tensor.
inline void look_on_host(const Tensor& from, const std::function<void(const float* values)>& look) {
  look_at_bytes_on_host(from, [&](const void* bytes) { look(static_cast<const float*>(bytes)); });
}

}  // namespace cald
