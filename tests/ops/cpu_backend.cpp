#include "kernels/gemm.h"
#include "tests/ops/harness.h"

namespace cald::test {

const Backend& backend() {
  static const Backend cpu{"cpu", Device::cpu, {1, 2}, {1, 2, 3, 8}, cpu_has_bf16()};
  return cpu;
}

}  // namespace cald::test
