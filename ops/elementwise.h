// Sums, activations, dropout, and a contiguous copy of a strided view.
#pragma once
#include "engine/autograd.h"
#include "engine/base/check.h"
#include "kernels/elementwise.h"

namespace cald {

/// y = a + b, same shapes.
struct Sum {
  static constexpr const char* name = "sum";

  Tensor forward(Forward& f, const Tensor& a, const Tensor& b) const {
    check_shape(name, "b", b.shape(), a.shape());
    Tensor y = f.empty(a.shape());
    f.launch(Add{a, b, y});
    return y;
  }
  void backward(const Saved&, const Tensor& dy, Grads& g) const {
    g.pass(0, dy);
    g.pass(1, dy);
  }
};

/// y = f(x).
struct Activate {
  static constexpr const char* name = "activation";
  Activation f;

  Tensor forward(Forward& fw, const Tensor& x) const {
    Tensor y = fw.like(x);
    fw.launch(ActivationForward{x, y, f});
    fw.save(f == Activation::tanh ? y : x);  // tanh' follows from the output
    return y;
  }
  void backward(const Saved& s, const Tensor& dy, Grads& g) const {
    if (const GradRef dx = g.reuse(0, dy)) g.launch(ActivationBackward{s[0], dy, dx, f});
  }
};

/// y = x kept ? x / (1 - p) : 0, by the key and not by memory order. samples: (B) i32.
struct DropoutOp {
  static constexpr const char* name = "dropout";
  Dropout dropout;

  Tensor forward(Forward& f, const Tensor& x, const Tensor& samples) const {
    check_shape(name, "samples", samples.shape(), {x.dim(0)});
    Tensor y = f.empty(x.shape());
    f.launch(DropoutApply{x, samples, {y, false}, dropout});
    f.save(samples);
    return y;
  }
  void backward(const Saved& s, const Tensor& dy, Grads& g) const {
    if (const GradRef dx = g.reuse(0, dy)) g.launch(DropoutApply{dy, s[0], dx, dropout});
  }
};

/// y = x, its elements in row-major order.
struct Contiguous {
  static constexpr const char* name = "contiguous";

  Tensor forward(Forward& f, const Tensor& x) const {
    Tensor y = f.like(x);
    f.launch(Copy{x, y});
    return y;
  }
  void backward(const Saved&, const Tensor& dy, Grads& g) const { g.pass(0, dy); }
};

}  // namespace cald
