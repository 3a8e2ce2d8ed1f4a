// The part of the CUDA runtime's interface that deals with the device, its memory and launches.
#include <cuda_profiler_api.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <unordered_map>
#include <vector>

#include "kernels/cuda/emulation/kernel.h"
#include "kernels/cuda/emulation/memory.h"
#include "kernels/cuda/emulation/scheduler.h"
#include "kernels/cuda/emulation/stream.h"

using namespace cald::emulation;

namespace {

constexpr int kProcessors = 4;

std::map<const char*, std::size_t>& pinned() {
  static std::map<const char*, std::size_t> ranges;
  return ranges;
}

bool is_pinned(const void* p) {
  auto next = pinned().upper_bound(static_cast<const char*>(p));
  return next != pinned().begin() && (--next, static_cast<const char*>(p) < next->first + next->second);
}

std::unordered_map<const void*, int>& dynamic_shared_limits() {
  static std::unordered_map<const void*, int> limits;
  return limits;
}

/// The rows of a copy: `height` times `width` bytes at a pitch on either side.
struct Copy {
  void* to;
  std::size_t to_pitch;
  const void* from;
  std::size_t from_pitch;
  std::size_t width, height;

  void run() const {
    for (std::size_t row = 0; row < height; ++row)
      std::memmove(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch, width);
  }
  std::size_t span(std::size_t pitch) const { return (height - 1) * pitch + width; }
};

/// Whether both sides are where `kind` says.
cudaError_t check(const Copy& c, cudaMemcpyKind kind) {
  if (c.width > c.to_pitch || c.width > c.from_pitch) return cudaErrorInvalidValue;
  const bool to = in_device(c.to), from = in_device(c.from);
  if (to && !device_holds(c.to, c.span(c.to_pitch))) return cudaErrorInvalidValue;
  if (from && !device_holds(c.from, c.span(c.from_pitch))) return cudaErrorInvalidValue;
  if (kind == cudaMemcpyDefault) return cudaSuccess;
  const bool to_expected = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_expected = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  return to == to_expected && from == from_expected ? cudaSuccess : cudaErrorInvalidMemcpyDirection;
}

cudaError_t copy(Copy c, cudaMemcpyKind kind, cudaStream_t stream, bool wait) {
  if (c.width == 0 || c.height == 0) return cudaSuccess;
  if (cudaError_t error = check(c, kind)) return set_error(error);
  const bool pageable_source = !in_device(c.from) && !is_pinned(c.from);
  const bool pageable_target = !in_device(c.to) && !is_pinned(c.to);
  // A graph would read or write it whenever it runs, with nobody to keep it alive.
  if (is_captured(stream) && (wait || pageable_source || pageable_target))
    return set_error(cudaErrorStreamCaptureUnsupported);
  if (!stream && is_any_captured()) return set_error(cudaErrorStreamCaptureImplicit);
  if (!wait && pageable_source) {  // the runtime takes a copy before it returns
    const auto* begin = static_cast<const char*>(c.from);
    enqueue(stream, [c, saved = std::vector<char>(begin, begin + c.span(c.from_pitch))] {
      Copy from_saved = c;
      from_saved.from = saved.data();
      from_saved.run();
    });
    return cudaSuccess;
  }
  enqueue(stream, [c] { c.run(); });
  return wait || pageable_target ? finish(stream) : cudaSuccess;
}

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** p, std::size_t bytes) {
  ++host_calls().blocks;
  *p = bytes ? device_allocate(bytes) : nullptr;
  return bytes && !*p ? set_error(cudaErrorMemoryAllocation) : cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  if (!p) return cudaSuccess;
  const cudaError_t status = finish_all();
  return device_free(p) ? status : set_error(cudaErrorInvalidValue);
}
cudaError_t cudaMallocAsync(void** p, std::size_t bytes, cudaStream_t) { return cudaMalloc(p, bytes); }
cudaError_t cudaFreeAsync(void* p, cudaStream_t stream) {
  if (p && !device_holds(p, 1)) return set_error(cudaErrorInvalidValue);
  if (p) enqueue(stream, [p] { device_free(p); });
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** p, std::size_t bytes, unsigned) {
  ++host_calls().blocks;
  *p = std::malloc(std::max<std::size_t>(bytes, 1));
  if (!*p) return set_error(cudaErrorMemoryAllocation);
  pinned()[static_cast<char*>(*p)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** p, std::size_t bytes) { return cudaHostAlloc(p, bytes, 0); }
cudaError_t cudaFreeHost(void* p) {
  finish_all();
  if (p && !pinned().erase(static_cast<char*>(p))) return set_error(cudaErrorInvalidValue);
  std::free(p);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  return copy({to, bytes, from, bytes, bytes, 1}, kind, nullptr, true);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return copy({to, bytes, from, bytes, bytes, 1}, kind, stream, false);
}
cudaError_t cudaMemcpy2D(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t width,
                         std::size_t height, cudaMemcpyKind kind) {
  return copy({to, to_pitch, from, from_pitch, width, height}, kind, nullptr, true);
}
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  return copy({to, to_pitch, from, from_pitch, width, height}, kind, stream, false);
}
cudaError_t cudaMemsetAsync(void* p, int value, std::size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!device_holds(p, bytes)) return set_error(cudaErrorInvalidValue);
  enqueue(stream, [=] { std::memset(p, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemset(void* p, int value, std::size_t bytes) { return cudaMemsetAsync(p, value, bytes, nullptr); }
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *free = device_bytes_free();
  *total = kDeviceArena;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : set_error(cudaErrorInvalidDevice); }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return set_error(cudaErrorInvalidDevice);
  *properties = {};
  std::strcpy(properties->name, "emulated sm_90");
  properties->major = 9;
  properties->totalGlobalMem = kDeviceArena;
  properties->sharedMemPerBlock = kStaticSharedLimit;
  properties->sharedMemPerBlockOptin = kSharedLimit;
  properties->sharedMemPerMultiprocessor = 228 << 10;
  properties->regsPerBlock = properties->regsPerMultiprocessor = 65536;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->multiProcessorCount = kProcessors;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return set_error(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = kProcessors;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = kSharedLimit;
      return cudaSuccess;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = 2048;
      return cudaSuccess;
    default:
      return set_error(cudaErrorInvalidValue);
  }
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) { return cudaRuntimeGetVersion(version); }
cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<std::size_t>(value) > kSharedLimit) return set_error(cudaErrorInvalidValue);
  dynamic_shared_limits()[kernel] = value;
  return cudaSuccess;
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* kernel, void** arguments) {
  const dim3 grid = config->gridDim, block = config->blockDim;
  const bool empty = !grid.x || !grid.y || !grid.z || !block.x || !block.y || !block.z;
  const bool large = grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 || block.x > 1024 || block.y > 1024 ||
                     block.z > 64 || block.x * block.y * block.z > 1024;
  if (empty || large) return set_error(cudaErrorInvalidConfiguration);
  auto raised = dynamic_shared_limits().find(kernel);
  const std::size_t limit = raised == dynamic_shared_limits().end() ? kStaticSharedLimit : raised->second;
  if (config->dynamicSmemBytes > limit) return set_error(cudaErrorInvalidValue);
  const Binder bind = find_kernel(kernel);
  if (!bind) return set_error(cudaErrorInvalidDeviceFunction);
  enqueue(
      config->stream,
      [shape = Grid{grid, block, config->dynamicSmemBytes, kernel}, call = bind(kernel, arguments)] {
        run_grid(shape, call);
      },
      kernel);
  return cudaPeekAtLastError();
}

}  // extern "C"
