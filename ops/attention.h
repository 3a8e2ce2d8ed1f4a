// Multi-head softmax attention, and the low-rank projection of its keys and values.
#pragma once
#include "engine/autograd.h"
#include "engine/base/check.h"
#include "kernels/attention.h"
#include "kernels/low_rank.h"

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

/// y (B, k, D) = e[rank]^T x / sqrt(length): k weighted sums of the sample's tokens.
/// x: (B, S, D), e: (P, k), rank (B, S) i32 with -1 for pads, lengths (B) i32.
struct LowRankProjection {
  static constexpr const char* name = "low_rank";
  Tensor rank, lengths;

  Tensor forward(Forward& f, const Tensor& x, const Tensor& e) const {
    CHECK_THAT(x.rank() == 3, "x", "(B, S, D), got " + x.shape().str());
    check_shape(name, "rank", rank.shape(), {x.dim(0), x.dim(1)});
    Tensor y = f.empty({x.dim(0), e.dim(1), x.dim(2)}, x.dtype());
    f.launch(LowRankForward{x, e, rank, lengths, y});  // eq:linformer
    f.save(x, e);
    return y;
  }
  void backward(const Saved& s, const Tensor& dy, Grads& g) const {
    const GradRef dx = g[0], de = g[1];
    g.launch(LowRankBackward{s[0], s[1], rank, lengths, dy, dx, de});
  }
};

}  // namespace cald
