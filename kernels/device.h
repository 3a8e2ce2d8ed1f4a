// A device: all that a backend gives beside its launches.
//
// Two backends are linked into every program: the CPU's, and CUDA's, which in a build without CUDA is
// kernels/cuda/absent.cpp: it opens nothing.
#pragma once
#include <string>

#include "engine/base/exec.h"

namespace cald {

/// A piece of a step that a device may run as one graph.
struct GraphName {
  std::string kind;   ///< pieces of one kind have like launches: other addresses, numbers and sizes
  std::string shape;  ///< with the kind: what has the very same launches
};

/// Memory, and transfers for what happens outside of steps; within them see Upload and Download. All that was launched
/// before a transfer is over when it begins, and it is over when it returns.
struct DeviceFunctions {
  /// Whether a launch returns before it is done.
  bool runs_ahead;
  /// Completes exec (device, threads and compute are set) with the backend's handles. Error: the device is not there.
  void (*open)(Exec& exec);
  void (*close)(Exec& exec) noexcept;
  /// Waits for all that was launched; downloads have then arrived. Error: what of it failed.
  void (*synchronize)(const Exec& exec);
  /// What is launched between the two may be gathered and then given to the device as one graph, for which the host
  /// must not wait in between. Not complete: what was gathered is dropped.
  void (*begin_graph)(const Exec& exec, const GraphName& name);
  void (*end_graph)(const Exec& exec, bool complete);
  /// Begins and ends what a profiler is to record.
  void (*profile)(const Exec& exec, bool on);
  /// A named range of a profile, around what the calling thread launches; null names nothing and ends the last one.
  void (*range)(const char* name) noexcept;
  /// At least one byte, aligned to 64; null if there is no memory.
  void* (*allocate)(std::size_t bytes);
  void (*release)(void* data) noexcept;
  void (*write)(void* to, const void* host, std::size_t bytes);
  void (*read)(void* host, const void* from, std::size_t bytes);
};

template <Device D>
const DeviceFunctions& device_functions();
template <>
const DeviceFunctions& device_functions<Device::cpu>();
template <>
const DeviceFunctions& device_functions<Device::cuda>();

inline const DeviceFunctions& functions_of(Device d) {
  return d == Device::cuda ? device_functions<Device::cuda>() : device_functions<Device::cpu>();
}

/// A range of the device's profiler while it lives; none without a name.
class ProfileRange {
 public:
  ProfileRange(const DeviceFunctions& device, const char* name) : device_(name ? &device : nullptr) {
    if (device_) device_->range(name);
  }
  ~ProfileRange() {
    if (device_) device_->range(nullptr);
  }
  ProfileRange(const ProfileRange&) = delete;
  ProfileRange& operator=(const ProfileRange&) = delete;

 private:
  const DeviceFunctions* device_;
};

}  // namespace cald
