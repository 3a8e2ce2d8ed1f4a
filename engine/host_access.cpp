#include "engine/host_access.h"

#include <cstddef>
#include <vector>

#include "engine/base/error.h"
#include "kernels/device.h"
#include "kernels/elementwise.h"

namespace cald {
namespace {

void check_contiguous(const Tensor& t) {
  if (!t.ref().is_contiguous())
    throw Error("a tensor of shape " + t.shape().str() + " with strides " + t.strides().str() +
                " is not contiguous, so the host cannot copy it");
}

}  // namespace

void write_tensor(const Tensor& to, const void* from) {
  check_contiguous(to);
  if (to.device() != Device::meta) functions_of(to.device()).write(to.data<void>(), from, to.bytes());
}

void read_tensor(const Tensor& from, void* to) {
  check_contiguous(from);
  functions_of(from.device()).read(to, from.data<void>(), from.bytes());
}

void fill_bytes_on_host(const Tensor& to, const std::function<void(void*)>& fill) {
  if (to.device() == Device::meta) return;
  if (to.device() == Device::cpu) return fill(to.data<void>());
  std::vector<std::byte> bytes(to.bytes());
  fill(bytes.data());
  write_tensor(to, bytes.data());
}

void fill_on_host(const Tensor& to, const std::function<void(float*)>& fill) {
  if (to.dtype() != DType::bf16) return fill_bytes_on_host(to, [&](void* bytes) { fill(static_cast<float*>(bytes)); });
  if (to.device() == Device::meta) return;
  std::vector<float> values(static_cast<std::size_t>(to.numel()));
  fill(values.data());
  write_floats(to, values.data());
}

void write_floats(const Tensor& to, const float* values) {
  if (to.dtype() != DType::bf16) return write_tensor(to, values);
  fill_bytes_on_host(to, [&](void* bytes) {
    TensorRef rounded = to;
    rounded.data = bytes;
    Exec host;
    run<Device::cpu>(host, Copy{{const_cast<float*>(values), DType::f32, to.shape(), to.strides(), true}, rounded});
  });
}

void look_at_bytes_on_host(const Tensor& from, const std::function<void(const void*)>& look) {
  if (from.device() == Device::cpu) return look(from.data<void>());
  std::vector<std::byte> bytes(from.bytes());
  read_tensor(from, bytes.data());
  look(bytes.data());
}

}  // namespace cald
