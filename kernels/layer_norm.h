// LayerNorm (Ba et al. 2016) with the residual sum and dropout before it, as a post-norm transformer uses it.
#pragma once
#include "engine/base/rng.h"
#include "kernels/launch.h"

namespace cald {

/// sum = residual + dropout(x);  y = (sum - mean) * rstd * weight + bias, over the last dimension.
///
/// x, residual, sum, y: (B, S, D) or (rows, D). weight, bias: (D). mean, rstd: (rows). x is f32 or bf16, all else f32.
/// Optional: residual; sum (absent: not stored, and then the backward's `sum` is x itself, in f32); weight and bias;
/// samples (B) i32 is needed with active dropout only. rstd = 1 / sqrt(var + eps), var biased.
struct LayerNormForward {
  static constexpr const char* name = "layer_norm";
  TensorRef x, residual, weight, bias, samples;
  TensorRef sum, y, mean, rstd;
  float eps;
  Dropout dropout;
};
Cost cost_of(const LayerNormForward&);

/// From dy: dresidual (set or add) is the gradient of sum, dx (set or add) the same through dropout's mask,
/// dweight = sum_rows dy * xhat, dbias = sum_rows dy. Each may be absent. dx is f32 or bf16.
struct LayerNormBackward {
  static constexpr const char* name = "layer_norm_backward";
  TensorRef sum, weight, mean, rstd, samples, dy;
  GradRef dx, dresidual, dweight, dbias;
  Dropout dropout;
};
Cost cost_of(const LayerNormBackward&);
template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const LayerNormBackward&);
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const LayerNormBackward&);

}  // namespace cald
