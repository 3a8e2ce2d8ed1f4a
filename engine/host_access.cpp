#include "engine/host_access.h"

#include <vector>

#include "engine/base/error.h"
#include "kernels/device.h"

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

void fill_on_host(const Tensor& to, const std::function<void(float*)>& fill) {
  if (to.device() == Device::meta) return;
  if (to.device() == Device::cpu) return fill(to.data<float>());
  std::vector<float> values(static_cast<std::size_t>(to.numel()));
  fill(values.data());
  write_tensor(to, values.data());
}

void look_on_host(const Tensor& from, const std::function<void(const float*)>& look) {
  if (from.device() == Device::cpu) return look(from.data<float>());
  std::vector<float> values(static_cast<std::size_t>(from.numel()));
  read_tensor(from, values.data());
  look(values.data());
}

}  // namespace cald
