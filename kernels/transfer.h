// Copies between the host and the device.
#pragma once
#include "kernels/launch.h"

namespace cald {

/// The contiguous tensor `to` receives bytes from the host, which may be reused after the launch.
struct Upload {
  static constexpr const char* name = "upload";
  const void* from;
  TensorRef to;
};
Cost cost_of(const Upload&);

/// The host receives the contiguous tensor `from`, by the next synchronize() of the device.
struct Download {
  static constexpr const char* name = "download";
  TensorRef from;
  void* to;
};
Cost cost_of(const Download&);

}  // namespace cald
