// Launches that CUDA has no kernel for; a test that needs one fails with its name. A launch with scratch memory also
// stands in kernels/cuda/absent.cpp as CALD_ABSENT_WITH_WORKSPACE.
#include <string>

#include "engine/base/error.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/gemm.h"
#include "kernels/layer_norm.h"
#include "kernels/losses.h"
#include "kernels/optimizer.h"

namespace cald {

#define CALD_PLACEHOLDER(Args)                                          \
  template <>                                                           \
  void run<Device::cuda>(Exec&, const Args&) {                          \
    throw Error(std::string(Args::name) + ": there is no CUDA kernel"); \
  }

CALD_PLACEHOLDER(ColumnSum)
CALD_PLACEHOLDER(EmbeddingForward)
CALD_PLACEHOLDER(EmbeddingBackward)
CALD_PLACEHOLDER(LayerNormForward)
CALD_PLACEHOLDER(LayerNormBackward)
CALD_PLACEHOLDER(CrossEntropyForward)
CALD_PLACEHOLDER(CrossEntropyBackward)
CALD_PLACEHOLDER(KlForward)
CALD_PLACEHOLDER(KlBackward)
CALD_PLACEHOLDER(SquaredErrorForward)
CALD_PLACEHOLDER(SquaredErrorBackward)
CALD_PLACEHOLDER(AdamW)
CALD_PLACEHOLDER(GradientNorm)

}  // namespace cald
