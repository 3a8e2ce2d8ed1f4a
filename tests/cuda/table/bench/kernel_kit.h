// In the place of bench/kernel_kit.h: bench/kernel_cases.cpp, compiled with this folder before the root, makes the same
// launches, of zeros, and hands them to whoever asks instead of timing them.
#pragma once
#include <cuda_runtime_api.h>

#include <functional>
#include <memory>

#include "bench/kernel_bench.h"
#include "kernels/transfer.h"
#include "tests/cuda/tiling_bytes.h"

namespace cald {

struct KernelLaunch {
  std::string name;
  Cost cost;
  test::Tiling tiling;
  std::function<void()> run;  ///< starts the kernels on the null stream
};

class KernelKit {
 public:
  KernelKit(const Exec& exec, std::function<void(const KernelLaunch&)> ask) : exec_(exec), ask_(std::move(ask)) {}

  TensorRef values(const Shape& shape, DType dtype = DType::f32) { return zeros(shape, dtype); }
  TensorRef positive(const Shape& shape, DType dtype = DType::f32) { return zeros(shape, dtype); }
  TensorRef factors(const Shape& shape) { return zeros(shape, exec_.compute); }
  TensorRef weight(const Shape& shape, Packing) { return factors(shape); }
  TensorRef drawn(const Shape& shape, std::int64_t end) {
    return whole(shape, [&](std::int64_t i) { return i * 7919 % end; });
  }
  TensorRef counted(const Shape& shape) {
    return whole(shape, [&](std::int64_t i) { return i % shape[-1]; });
  }
  TensorRef constant(const Shape& shape, std::int32_t value) {
    return whole(shape, [&](std::int64_t) { return value; });
  }

  template <class Args>
  void time(const Args& args) {
    if constexpr (!std::is_same_v<Args, Upload> && !std::is_same_v<Args, Download>) {
      exec_.workspace = memory(workspace_bytes<Device::cuda>(exec_, args));
      ask_({Args::name, cost_of(args), test::tiling_of(args), [&] { cald::run<Device::cuda>(exec_, args); }});
    }
  }

 private:
  void* memory(std::size_t bytes) {
    void* p = nullptr;
    if (bytes > 0 && cudaMalloc(&p, bytes) != cudaSuccess) throw Error("no device memory");
    if (bytes > 0) cudaMemset(p, 0, bytes);
    blocks_.emplace_back(p, [](void* block) { cudaFree(block); });
    return p;
  }
  TensorRef zeros(const Shape& shape, DType dtype) {
    return {memory(static_cast<std::size_t>(shape.numel()) * size_of(dtype)), dtype, shape, contiguous_strides(shape),
            true};
  }
  template <class Value>
  TensorRef whole(const Shape& shape, const Value& value_at) {
    const TensorRef t = zeros(shape, DType::i32);
    std::vector<std::int32_t> host;
    for (std::int64_t i = 0; i < shape.numel(); ++i) host.push_back(static_cast<std::int32_t>(value_at(i)));
    cudaMemcpy(t.data, host.data(), host.size() * sizeof(std::int32_t), cudaMemcpyHostToDevice);
    return t;
  }

  Exec exec_;
  std::function<void(const KernelLaunch&)> ask_;
  std::vector<std::shared_ptr<void>> blocks_;
};

struct KernelCase {
  std::string name;
  std::function<void(KernelKit&, const StepShape&)> run;
};
std::vector<KernelCase> kernel_cases();

}  // namespace cald
