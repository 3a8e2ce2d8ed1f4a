// The CUDA backend of a build without CUDA: it has every launch, and opens nothing.
#include <string>

#include "engine/base/error.h"
#include "kernels/attention.h"
#include "kernels/device.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/gemm.h"
#include "kernels/layer_norm.h"
#include "kernels/losses.h"
#include "kernels/low_rank.h"
#include "kernels/optimizer.h"
#include "kernels/transfer.h"

namespace cald {
namespace {

[[noreturn]] void refuse() {
  throw Error("--device cuda: this program was built without CUDA (-DCALD_CUDA=ON); use --device cpu");
}

}  // namespace

template <>
const DeviceFunctions& device_functions<Device::cuda>() {
  static constexpr DeviceFunctions functions{true,
                                             [](Exec&) { refuse(); },
                                             [](Exec&) noexcept {},
                                             [](const Exec&) { refuse(); },
                                             [](const Exec&, const GraphName&) { refuse(); },
                                             [](const Exec&, bool) { refuse(); },
                                             [](const Exec&, bool) { refuse(); },
                                             [](const char*) noexcept {},
                                             [](std::size_t) -> void* { refuse(); },
                                             [](void*) noexcept {},
                                             [](void*, const void*, std::size_t) { refuse(); },
                                             [](void*, const void*, std::size_t) { refuse(); }};
  return functions;
}

template <>
std::size_t packed_bytes<Device::cuda>(const Shape&, Packing) {
  return 0;
}

#define CALD_ABSENT(Args)                      \
  template <>                                  \
  void run<Device::cuda>(Exec&, const Args&) { \
    refuse();                                  \
  }
#define CALD_ABSENT_WITH_WORKSPACE(Args)                                \
  CALD_ABSENT(Args)                                                     \
  template <>                                                           \
  std::size_t workspace_bytes<Device::cuda>(const Exec&, const Args&) { \
    refuse();                                                           \
  }

CALD_ABSENT(AttentionForward)
CALD_ABSENT_WITH_WORKSPACE(AttentionBackward)
CALD_ABSENT(Fill)
CALD_ABSENT(Copy)
CALD_ABSENT(Add)
CALD_ABSENT(FindNonFinite)
CALD_ABSENT(ActivationForward)
CALD_ABSENT(ActivationBackward)
CALD_ABSENT(DropoutApply)
CALD_ABSENT(EmbeddingForward)
CALD_ABSENT_WITH_WORKSPACE(EmbeddingBackward)
CALD_ABSENT_WITH_WORKSPACE(Gemm)
CALD_ABSENT_WITH_WORKSPACE(ColumnSum)
CALD_ABSENT(LayerNormForward)
CALD_ABSENT_WITH_WORKSPACE(LayerNormBackward)
CALD_ABSENT_WITH_WORKSPACE(CrossEntropyForward)
CALD_ABSENT_WITH_WORKSPACE(CrossEntropyBackward)
CALD_ABSENT_WITH_WORKSPACE(KlForward)
CALD_ABSENT_WITH_WORKSPACE(KlBackward)
CALD_ABSENT_WITH_WORKSPACE(SquaredErrorForward)
CALD_ABSENT_WITH_WORKSPACE(SquaredErrorBackward)
CALD_ABSENT(LowRankForward)
CALD_ABSENT_WITH_WORKSPACE(LowRankBackward)
CALD_ABSENT(AdamW)
CALD_ABSENT_WITH_WORKSPACE(GradientNorm)
CALD_ABSENT(Upload)
CALD_ABSENT(Download)

}  // namespace cald
