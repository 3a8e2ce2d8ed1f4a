// A device that is open while this lives.
#pragma once
#include "kernels/device.h"

namespace cald {

class OpenDevice {
 public:
  /// `wanted` says which device, how many threads, and the products' dtype. Error if the device is not there.
  explicit OpenDevice(const Exec& wanted) : exec_(wanted) { functions_of(exec_.device).open(exec_); }
  OpenDevice(const OpenDevice&) = delete;
  OpenDevice& operator=(const OpenDevice&) = delete;
  ~OpenDevice() { functions_of(exec_.device).close(exec_); }

  const Exec& exec() const { return exec_; }

 private:
  Exec exec_;
};

}  // namespace cald
