// The CUDA device: its stream, memory and transfers.
#include "kernels/device.h"

#include <nvtx3/nvToolsExt.h>

#include <memory>
#include <string>

#include "engine/base/error.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/check_launch.h"
#include "kernels/transfer.h"

namespace cald {
namespace {

std::size_t bytes_of(const TensorRef& t) { return static_cast<std::size_t>(t.numel()) * size_of(t.dtype); }

void open(Exec& exec) {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess || devices == 0) {
    cudaGetLastError();
    throw Error(std::string("--device cuda: no CUDA device is usable here (") +
                (error != cudaSuccess ? cudaGetErrorString(error) : "none was found") + "); use --device cpu");
  }
  cudaStream_t stream = nullptr;
  cuda::check_launch("open", cudaStreamCreate(&stream));
  exec.stream = stream;
  auto products = std::make_unique<cuda::Products>();
  if (cublasLtCreate(&products->handle) != CUBLAS_STATUS_SUCCESS) {
    cudaStreamDestroy(stream);
    throw Error("--device cuda: cuBLASLt does not start");
  }
  exec.products = products.release();
}

void close(Exec& exec) noexcept {
  const std::unique_ptr<cuda::Products> products(static_cast<cuda::Products*>(exec.products));
  if (products) cublasLtDestroy(products->handle);
  if (exec.stream) cudaStreamDestroy(static_cast<cudaStream_t>(exec.stream));
  exec.products = exec.stream = nullptr;
}

void synchronize(const Exec& exec) {
  cuda::check_launch("synchronize", cudaStreamSynchronize(static_cast<cudaStream_t>(exec.stream)));
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

/// The streams of steps do not wait for copies, so the copies wait for all of the device.
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
      open, close, synchronize, range, allocate, [](void* data) noexcept { cudaFree(data); }, write, read};
  return functions;
}

template <>
void run<Device::cuda>(Exec& exec, const Upload& u) {
  if (const std::size_t n = bytes_of(u.to))
    cuda::check_launch(Upload::name, cudaMemcpyAsync(u.to.data, u.from, n, cudaMemcpyHostToDevice,
                                                     static_cast<cudaStream_t>(exec.stream)));
}

template <>
void run<Device::cuda>(Exec& exec, const Download& d) {
  const auto stream = static_cast<cudaStream_t>(exec.stream);
  const std::size_t n = bytes_of(d.from);
  if (n == 0) return;
  cuda::check_launch(Download::name, cudaMemcpyAsync(d.to, d.from.data, n, cudaMemcpyDeviceToHost, stream));
  cuda::check_launch(Download::name, cudaStreamSynchronize(stream));
}

}  // namespace cald
