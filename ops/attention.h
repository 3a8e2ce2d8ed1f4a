// Multi-head softmax attention.
#pragma once
#include "engine/autograd.h"
#include "engine/base/check.h"
#include "kernels/attention.h"

namespace cald {

/// y = softmax(scale q k^T) v per head. q: (B, Sq, D); k, v: (B, Sk, D); mask (B, Sk) i32 or absent; samples (B) i32,
/// with active dropout only.
struct Attention {
  static constexpr const char* name = "attention";
  int heads;
  float scale;
  bool causal = false;
  Dropout dropout{};

  Tensor forward(Forward& f, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
                 const Tensor& samples) const {
    CHECK_THAT(q.rank() == 3 && q.dim(2) % heads == 0, "q", "(B, S, heads * head size), got " + q.shape().str());
    CHECK_SHAPE(k, {q.dim(0), k.dim(1), q.dim(2)});
    check_shape(name, "v", v.shape(), k.shape());
    if (mask) CHECK_SHAPE(mask, {k.dim(0), k.dim(1)});
    Tensor y = f.like(q);
    Tensor lse = f.empty({q.dim(0), heads, q.dim(1)});
    f.launch(AttentionForward{q, k, v, mask, samples, y, lse, heads, scale, causal, dropout});  // eq:attention
    f.save(q, k, v, mask, samples, y, lse);
    return y;
  }
  void backward(const Saved& s, const Tensor& dy, Grads& g) const {
    const GradRef dq = g[0], dk = g[1], dv = g[2];
    g.launch(
        AttentionBackward{s[0], s[1], s[2], s[3], s[4], s[5], s[6], dy, dq, dk, dv, heads, scale, causal, dropout});
  }
};

}  // namespace cald
