// The optimizer's launches, over all parameters at once.
#pragma once
#include <vector>

#include "engine/base/rng.h"
#include "kernels/launch.h"

namespace cald {

/// One parameter of an update. The first four are contiguous and of one shape; value and grad are f32, m and v are f32
/// or both bf16, in all slots of an update alike. In bf16, with 8 bits, v would never decay if it were rounded to the
/// nearest; so both are rounded stochastically (rounding_noise, keyed by `noise`, the step and the element).
///
/// The gradient of a table (V, D) may be by rows: row r's is row rows[r] of grad (N, D), or 0 if rows[r] is -1. The
/// update is the same to the bit. Where the weight does not decay, rows whose gradients were 0 from the start would not
/// change: `moved` tells them, so that they cost nothing. An update by a whole gradient marks all rows. Not for
/// GradientNorm.
struct AdamWSlot {
  TensorRef value, grad, m, v;
  float learning_rate;
  float weight_decay;
  TensorRef rows = {};   ///< (V) i32; absent: grad is of value's shape
  TensorRef moved = {};  ///< (V) i32, of a table: not 0 for the rows that ever had a gradient; updated too
  TensorRef forward = {}, backward = {};  ///< copies of value in bf16, renewed with it: packed, or one in rows
  std::uint32_t noise = 0;                ///< tells this parameter's rounding from that of others

  bool has_packed_copies() const { return forward.packing != Packing::none; }
  bool has_bf16_moments() const { return m.dtype == DType::bf16; }
  std::uint32_t noise_key(std::int64_t step) const { return mix(noise + static_cast<std::uint32_t>(step)); }
};

/// AdamW (Loshchilov & Hutter 2019) with decoupled decay, PyTorch's order of operations:
///   value *= 1 - lr wd;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;
///   value -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps),   g = grad * grad_scale.
/// `step` t counts from 1. If max_norm > 0, grad_scale = min(1, max_norm / (norm + 1e-6)) with `norm` (1) as written by
/// GradientNorm (torch.nn.utils.clip_grad_norm_).
struct AdamW {
  static constexpr const char* name = "adamw";
  const std::vector<AdamWSlot>* slots;
  std::int64_t step;
  double beta1, beta2;  ///< in f32, 1 - 0.999 would be off by 1.3e-5
  float eps;
  float max_norm = 0.0f;
  TensorRef norm;
};
Cost cost_of(const AdamW&);

/// norm (1) = sqrt of the sum of squares over all gradients; summed in f64, in fixed blocks and order, so that the
/// result does not depend on the number of threads.
struct GradientNorm {
  static constexpr const char* name = "gradient_norm";
  const std::vector<AdamWSlot>* slots;
  TensorRef norm;
};
Cost cost_of(const GradientNorm&);
template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const GradientNorm&);
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const GradientNorm&);

}  // namespace cald
