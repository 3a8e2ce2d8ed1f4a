#include "kernels/transfer.h"

#include <cstring>

namespace cald {
namespace {
std::size_t bytes_of(const TensorRef& t) { return static_cast<std::size_t>(t.numel()) * size_of(t.dtype); }
}  // namespace

template <>
void run<Device::cpu>(Exec&, const Upload& u) {
  if (const std::size_t n = bytes_of(u.to)) std::memcpy(u.to.data, u.from, n);
}

template <>
void run<Device::cpu>(Exec&, const Download& d) {
  if (const std::size_t n = bytes_of(d.from)) std::memcpy(d.to, d.from.data, n);
}

}  // namespace cald
