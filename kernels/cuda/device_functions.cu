// The CUDA device: its stream, memory and transfers.
#include "kernels/device.h"

#include <cuda_profiler_api.h>
#include <nvtx3/nvToolsExt.h>

#include <memory>
#include <string>

#include "engine/base/error.h"
#include "kernels/cuda/check_launch.h"
#include "kernels/cuda/device_state.h"
#include "kernels/transfer.h"

namespace cald {
namespace {

std::size_t bytes_of(const TensorRef& t) { return static_cast<std::size_t>(t.numel()) * size_of(t.dtype); }

cudaStream_t stream_of(const Exec& exec) { return static_cast<cudaStream_t>(exec.stream); }
cuda::DeviceState& state_of(const Exec& exec) { return *static_cast<cuda::DeviceState*>(exec.state); }

void open(Exec& exec) {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess || devices == 0) {
    cudaGetLastError();
    throw Error(std::string("--device cuda: no CUDA device is usable here (") +
                (error != cudaSuccess ? cudaGetErrorString(error) : "none was found") + "); use --device cpu");
  }
  int major = 0;
  cuda::check_launch("open", cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  if (major < 8)
    throw Error("--device cuda: the device has compute capability " + std::to_string(major) + ", wanted 8 or later");
  cudaStream_t stream = nullptr;
  cuda::check_launch("open", cudaStreamCreate(&stream));  // a blocking one, see copy()
  exec.stream = stream;
  auto state = std::make_unique<cuda::DeviceState>();
  if (cublasLtCreate(&state->products.handle) != CUBLAS_STATUS_SUCCESS) {
    cudaStreamDestroy(stream);
    throw Error("--device cuda: cuBLASLt does not start");
  }
  exec.state = state.release();
}

void close(Exec& exec) noexcept {
  const std::unique_ptr<cuda::DeviceState> state(static_cast<cuda::DeviceState*>(exec.state));
  if (exec.stream) {
    cudaStreamSynchronize(stream_of(exec));  // what is under way may read what the state holds
    cudaStreamDestroy(stream_of(exec));
  }
  if (state) cublasLtDestroy(state->products.handle);
  exec.state = exec.stream = nullptr;
}

void synchronize(const Exec& exec) {
  cuda::check_launch("synchronize", cudaStreamSynchronize(stream_of(exec)));
  state_of(exec).staging.deliver();
}

void begin_graph(const Exec& exec, const GraphName& name) { state_of(exec).graphs.begin(stream_of(exec), name); }

void end_graph(const Exec& exec, bool complete) {
  if (!complete) state_of(exec).staging.forget();
  state_of(exec).graphs.end(stream_of(exec), complete);
}

void profile(const Exec& exec, bool on) {
  synchronize(exec);  // what is not to be recorded may be under way
  cuda::check_launch("profile", on ? cudaProfilerStart() : cudaProfilerStop());
}

void range(const char* name) noexcept {
  if (name)
    nvtxRangePushA(name);
  else
    nvtxRangePop();
}

void* allocate(std::size_t bytes) {
  void* data = nullptr;
  if (cudaMalloc(&data, bytes) == cudaSuccess) return data;
  cudaGetLastError();
  return nullptr;
}

/// Launches wait for a copy whose last part is still under way when it returns, since the stream is a blocking one; the
/// copy waits for all of the device.
void copy(const char* name, void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  if (bytes == 0) return;
  cuda::check_launch(name, cudaDeviceSynchronize());
  cuda::check_launch(name, cudaMemcpy(to, from, bytes, kind));
}
void write(void* to, const void* host, std::size_t bytes) { copy("write", to, host, bytes, cudaMemcpyHostToDevice); }
void read(void* host, const void* from, std::size_t bytes) { copy("read", host, from, bytes, cudaMemcpyDeviceToHost); }

}  // namespace

template <>
const DeviceFunctions& device_functions<Device::cuda>() {
  static constexpr DeviceFunctions functions{
      true,      open,    close, synchronize, begin_graph,
      end_graph, profile, range, allocate,    [](void* data) noexcept { cudaFree(data); },
      write,     read};
  return functions;
}

template <>
void run<Device::cuda>(Exec& exec, const Upload& u) {
  state_of(exec).staging.upload(stream_of(exec), u.to.data, u.from, bytes_of(u.to));
}

template <>
void run<Device::cuda>(Exec& exec, const Download& d) {
  state_of(exec).staging.download(stream_of(exec), d.to, d.from.data, bytes_of(d.from));
}

}  // namespace cald
