#include <hwy/targets.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "kernels/gemm.h"
#include "tests/ops/harness.h"

namespace cald::test {
namespace {

/// CALD_TEST_SIMD names an instruction set, as Highway does, whose kernels are to run in place of the best one's. The
/// program ends with kSkipped where there is none of that name.
void choose_instruction_set() {
  constexpr int kSkipped = 77;
  const char* const wanted = std::getenv("CALD_TEST_SIMD");
  if (!wanted) return;
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets())
    if (std::string(wanted) == hwy::TargetName(target)) {
      hwy::SetSupportedTargetsForTest(target);
      hwy::GetChosenTarget().Update(hwy::SupportedTargets());
      return;
    }
  std::printf("no kernels for %s here\n", wanted);
  std::exit(kSkipped);
}

}  // namespace

const Backend& backend() {
  static const Backend cpu = [] {
    choose_instruction_set();
    return Backend{"cpu", Device::cpu, {1, 2}, {1, 2, 3, 8}, cpu_has_bf16()};
  }();
  return cpu;
}

}  // namespace cald::test
