// The low-rank projection of the sequence axis.
#pragma once
#include "engine/autograd.h"
#include "engine/base/check.h"
#include "kernels/low_rank.h"

namespace cald {

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
