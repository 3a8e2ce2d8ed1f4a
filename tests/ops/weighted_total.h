// A stand-in for a loss whose gradient is known.
#pragma once
#include "engine/autograd.h"
#include "kernels/elementwise.h"

namespace cald::test {

/// sum(r x) as far as the backward can tell: its gradient is r.
struct WeightedTotal {
  static constexpr const char* name = "total";
  Tensor r;
  Tensor forward(Forward& f, const Tensor&) const {
    Tensor y = f.empty({1});
    f.launch(Fill{y, 0.0f});
    return y;
  }
  void backward(const Saved&, const Tensor&, Grads& g) const {
    const GradRef dx = g[0];
    if (dx.add)
      g.launch(Add{r, dx.to, dx.to});
    else
      g.launch(Copy{r, dx.to});  // r is a bf16 number where x is one
  }
};

}  // namespace cald::test
