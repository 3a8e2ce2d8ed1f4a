// The ops' tests on the CUDA device, emulated or real.
#include "tests/ops/harness.h"

namespace cald::test {

const Backend& backend() {
  static const Backend cuda{"CUDA", Device::cuda, {1}, {1}, true};
  return cuda;
}

}  // namespace cald::test
