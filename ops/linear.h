// Affine maps.
#pragma once
#include "engine/autograd.h"
#include "engine/base/check.h"
#include "kernels/gemm.h"

namespace cald {

/// y = x W^T + b. x: (..., in), W: (out, in), b: (out), f32, or absent -> y: (..., out). x and W are both f32 or both
/// bf16, and y is like them.
struct Linear {
  static constexpr const char* name = "linear";

  Tensor forward(Forward& f, const Tensor& x, const Tensor& w, const Tensor& b) const {
    CHECK_THAT(w.rank() == 2, "w", "a matrix (out, in)");
    CHECK_THAT(x.cols() == w.dim(1), "x", "(..., " + std::to_string(w.dim(1)) + "), got " + x.shape().str());
    if (b) CHECK_SHAPE(b, {w.dim(0)});
    Shape out = x.shape();
    out[-1] = w.dim(0);
    Tensor y = f.empty(out, x.dtype());
    f.launch(Gemm{.a = x, .b = w, .bias = b, .c = {y, false}, .transpose_b = true});
    f.save(x, w);
    return y;
  }

  void backward(const Saved& s, const Tensor& dy, Grads& g) const {
    const Tensor &x = s[0], &w = s[1];
    if (const GradRef dw = g[1]) g.launch(Gemm{.a = dy, .b = x, .bias = {}, .c = dw, .transpose_a = true});
    if (const GradRef db = g[2]) g.launch(ColumnSum{dy, db});
    if (const GradRef dx = g[0]) g.launch(Gemm{.a = dy, .b = w, .bias = {}, .c = dx});
  }
};

}  // namespace cald
