// The launches of the benchmarks' cases at their full shapes, as JSON lines for scripts/cuda-table, without running
// them: one line for a launch, with the configurations of the kernels that it starts.
#include <cstdio>

#include "engine/open_device.h"
#include "tests/cuda/table/bench/kernel_kit.h"

namespace {

struct Configuration {
  const void* kernel;
  dim3 grid, block;
  std::size_t dynamic_shared;
};
std::vector<Configuration> started;

}  // namespace

extern "C" {

extern const char __executable_start;

cudaError_t __wrap_cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* kernel, void**) {
  started.push_back({kernel, config->gridDim, config->blockDim, config->dynamicSmemBytes});
  return cudaSuccess;
}
int __wrap_cublasLtMatmul() { return 0; }

}  // extern "C"

namespace cald {
namespace {

void print(const std::string& which, const StepShape& shape, DType compute, const KernelLaunch& launch) {
  std::printf(
      "{\"case\": \"%s\", \"shape\": \"%s\", \"dtype\": \"%s\", \"flop\": %.0f, \"bf16_flop\": %.0f, \"bytes\": %.0f,"
      " \"kernels\": [",
      which.c_str(), shape.name.c_str(), name_of(compute), launch.cost.flop, launch.cost.bf16_flop, launch.cost.bytes);
  const char* comma = "";
  for (const Configuration& c : started) {
    std::printf("%s{\"address\": %td, \"grid\": [%u, %u, %u], \"block\": [%u, %u, %u], \"dynamic\": %zu}", comma,
                static_cast<const char*>(c.kernel) - &__executable_start, c.grid.x, c.grid.y, c.grid.z, c.block.x,
                c.block.y, c.block.z, c.dynamic_shared);
    comma = ", ";
  }
  std::printf("], \"tiling\": [");
  comma = "";
  for (const test::KernelBytes& b : launch.tiling) {
    std::printf("%s{\"kernel\": \"%s\", \"bytes\": %lld}", comma, b.kernel.c_str(),
                static_cast<long long>(b.loaded + b.stored));
    comma = ", ";
  }
  std::printf("]}\n");
}

void print_all() {
  const StepShape shapes[] = {{"mini", 32, 128, 384, 12, 1536, 128, 30522},
                              {"base", 8, 128, 768, 12, 3072, 128, 50265}};
  for (const DType compute : {DType::f32, DType::bf16}) {
    Exec exec;
    exec.device = Device::cuda, exec.compute = compute;
    const OpenDevice device(exec);
    for (const StepShape& s : shapes)
      for (const KernelCase& c : kernel_cases()) {
        KernelKit kit(device.exec(), [&](const KernelLaunch& launch) {
          started.clear();
          launch.run();
          print(c.name, s, compute, launch);
        });
        c.run(kit, s);
      }
  }
}

}  // namespace
}  // namespace cald

int main() { cald::print_all(); }
