// LayerNorm, alone and after a residual sum with dropout.
#pragma once
#include "engine/autograd.h"
#include "engine/base/check.h"
#include "kernels/layer_norm.h"

namespace cald {

/// y = LayerNorm(residual + dropout(x)) * w + b. Equals Sum(residual, DropoutOp(x)) followed by LayerNorm, without the
/// two passes over memory in between.
///
/// x, residual, y: (B, S, D) or (rows, D), f32; x may be bf16, residual may be absent. w, b: (D). samples: (B) i32,
/// with active dropout only.
struct LayerNorm {
  static constexpr const char* name = "layer_norm";
  float eps;
  Dropout dropout{};

  Tensor forward(Forward& f, const Tensor& x, const Tensor& residual, const Tensor& w, const Tensor& b,
                 const Tensor& samples) const {
    CHECK_SHAPE(w, {x.cols()});
    CHECK_SHAPE(b, {x.cols()});
    if (residual) check_shape(name, "residual", residual.shape(), x.shape());
    if (dropout.active()) check_shape(name, "samples", samples.shape(), {x.dim(0)});
    const bool keeps_sum = f.recording() && (residual || dropout.active() || x.dtype() != DType::f32);
    Tensor y = f.empty(x.shape());
    Tensor sum = keeps_sum ? f.empty(x.shape()) : Tensor{};
    Tensor mean = f.empty({x.rows()}), rstd = f.empty({x.rows()});
    f.launch(LayerNormForward{x, residual, w, b, samples, sum, y, mean, rstd, eps, dropout});
    f.save(keeps_sum ? sum : x, w, mean, rstd, samples);
    return y;
  }

  void backward(const Saved& s, const Tensor& dy, Grads& g) const {
    const GradRef dresidual = g[1], dx = g[0], dw = g[2], db = g[3];
    g.launch(LayerNormBackward{s[0], s[1], s[2], s[3], s[4], dy, dx, dresidual, dw, db, dropout});
  }
};

}  // namespace cald
