// Affine maps.
#pragma once
#include "engine/autograd.h"
#include "engine/base/check.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"

namespace cald {

/// The shape (..., out) of x W^T + b for x, which the op `name` calls `input`, (..., in), W (out, in), b (out) or
/// absent. Error: they do not fit.
inline Shape linear_shape(const char* name, const char* input, const Tensor& x, const Tensor& w, const Tensor& b) {
  CHECK_THAT(w.rank() == 2, "w", "a matrix (out, in)");
  CHECK_THAT(x.cols() == w.dim(1), input, "(..., " + std::to_string(w.dim(1)) + "), got " + x.shape().str());
  if (b) CHECK_SHAPE(b, {w.dim(0)});
  Shape out = x.shape();
  out[-1] = w.dim(0);
  return out;
}

/// The weight as x W^T and as dy W read it.
inline const Tensor& forward_of(const Tensor& w, const WeightCopies& c) { return c ? c.forward : w; }
inline const Tensor& backward_of(const Tensor& w, const WeightCopies& c) {
  return c.backward ? c.backward : forward_of(w, c);
}

/// y = x W^T + b. x: (..., in), f32 or bf16, W: (out, in), like x or f32, b: (out), f32, or absent -> y: (..., out),
/// like x. An f32 W is rounded to bf16 beside a bf16 x; `copies` are of W where it has been.
struct Linear {
  static constexpr const char* name = "linear";
  WeightCopies copies = {};

  Tensor forward(Forward& f, const Tensor& x, const Tensor& w, const Tensor& b) const {
    Tensor y = f.empty(linear_shape(name, "x", x, w, b), x.dtype());
    f.launch(Gemm{.a = x, .b = forward_of(w, copies), .bias = b, .c = {y, false}, .transpose_b = true});
    f.save(x, w);
    return y;
  }

  void backward(const Saved& s, const Tensor& dy, Grads& g) const {
    const Tensor &x = s[0], &w = s[1];
    if (const GradRef dw = g[1]) g.launch(Gemm{.a = dy, .b = x, .bias = {}, .c = dw, .transpose_a = true});
    if (const GradRef db = g[2]) g.launch(ColumnSum{dy, db});
    if (const GradRef dx = g[0]) g.launch(Gemm{.a = dy, .b = backward_of(w, copies), .bias = {}, .c = dx});
  }
};

/// y = x W^T + s b^T: a Linear where the bias counts s times in a row, since the row of x is a sum of others with that
/// much weight in all. x, W and copies as of Linear; b: (out) and s: (..., 1), f32 -> y: (..., out), like x.
struct WeightedBiasLinear {
  static constexpr const char* name = "weighted_bias_linear";
  WeightCopies copies = {};

  Tensor forward(Forward& f, const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& s) const {
    const Shape out = linear_shape(name, "x", x, w, b);
    CHECK_SHAPE(b, {w.dim(0)});  // not absent
    Shape one = x.shape();
    one[-1] = 1;
    check_shape(name, "s", s.shape(), one);
    const Tensor sums = f.empty(out);
    f.launch(Gemm{.a = x, .b = forward_of(w, copies), .bias = {}, .c = {sums, false}, .transpose_b = true});
    f.launch(Gemm{.a = s, .b = b, .bias = {}, .c = {sums, true}});
    f.save(x, w, b, s);
    return in_dtype(f, sums, x.dtype());
  }

  void backward(const Saved& saved, const Tensor& dy, Grads& g) const {
    const Tensor &x = saved[0], &w = saved[1], &b = saved[2], &s = saved[3];
    if (const GradRef dw = g[1]) g.launch(Gemm{.a = dy, .b = x, .bias = {}, .c = dw, .transpose_a = true});
    if (const GradRef dx = g[0]) g.launch(Gemm{.a = dy, .b = backward_of(w, copies), .bias = {}, .c = dx});
    if (!g.wanted(2) && !g.wanted(3)) return;
    const Tensor d = in_dtype(g, dy, DType::f32);
    if (const GradRef db = g[2]) g.launch(Gemm{.a = s, .b = d, .bias = {}, .c = db, .transpose_a = true});
    if (const GradRef ds = g[3]) g.launch(Gemm{.a = d, .b = b, .bias = {}, .c = ds, .transpose_b = true});
  }

 private:
  template <class Engine>
  static Tensor in_dtype(Engine& e, const Tensor& x, DType dtype) {
    if (x.dtype() == dtype) return x;
    const Tensor y = e.empty(x.shape(), dtype);
    e.launch(Copy{x, y});
    return y;
  }
};

/// y = f(h) W^T + b: Activate followed by Linear, but f(h) is not kept for the backward, which computes it again from
/// h. That is a pass over memory beside two products, and f(h) is as large as h, the largest tensor of a layer.
struct ActivatedLinear {
  static constexpr const char* name = "activated_linear";
  Activation f;
  WeightCopies copies = {};

  Tensor forward(Forward& fw, const Tensor& h, const Tensor& w, const Tensor& b) const {
    Tensor y = fw.empty(linear_shape(name, "h", h, w, b), h.dtype());
    const Tensor a = fw.like(h);
    fw.launch(ActivationForward{h, a, f});
    fw.launch(Gemm{.a = a, .b = forward_of(w, copies), .bias = b, .c = {y, false}, .transpose_b = true});
    fw.save(h, w);
    return y;
  }

  void backward(const Saved& s, const Tensor& dy, Grads& g) const {
    const Tensor &h = s[0], &w = s[1];
    Tensor a;  // f(h), in h's memory if nothing else reads that
    const auto place_of_a = [&] { return h.owns_alone() ? h : g.like(h); };
    const bool slope_from_output = f == Activation::tanh;
    if (slope_from_output || !g.wanted(0)) {
      a = place_of_a();
      g.launch(ActivationForward{h, a, f});
    }
    if (g.wanted(0)) {
      const Tensor dh = g.like(h);
      g.launch(Gemm{.a = dy, .b = backward_of(w, copies), .bias = {}, .c = {dh, false}});
      ActivationBackward through{h, dh, {dh, false}, f};
      if (slope_from_output)
        through.x = a;
      else if (g.wanted(1))
        through.y = a = place_of_a();
      g.launch(through);
      g.pass(0, dh);
    }
    if (const GradRef dw = g[1]) g.launch(Gemm{.a = dy, .b = a, .bias = {}, .c = dw, .transpose_a = true});
    if (const GradRef db = g[2]) g.launch(ColumnSum{dy, db});
  }
};

}  // namespace cald
