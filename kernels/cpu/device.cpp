#include "kernels/device.h"

#include <cstdlib>
#include <cstring>

namespace cald {
namespace {

constexpr std::size_t kAlignment = 64;

void* allocate(std::size_t bytes) {
  return std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
}

void copy(void* to, const void* from, std::size_t bytes) {
  if (bytes) std::memcpy(to, from, bytes);
}

}  // namespace

template <>
const DeviceFunctions& device_functions<Device::cpu>() {
  static constexpr DeviceFunctions functions{false,
                                             [](Exec&) {},
                                             [](Exec&) noexcept {},
                                             [](const Exec&) {},
                                             [](const Exec&, const GraphName&) {},
                                             [](const Exec&, bool) {},
                                             [](const Exec&, bool) {},
                                             [](const char*) noexcept {},
                                             allocate,
                                             [](void* data) noexcept { std::free(data); },
                                             copy,
                                             copy};
  return functions;
}

}  // namespace cald
