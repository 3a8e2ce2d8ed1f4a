// Elementwise launches: fill, copy, add, activations, dropout, and the test for non-finite values.
#pragma once
#include "engine/base/rng.h"
#include "kernels/launch.h"

namespace cald {

/// y = value, any dtype (the value is converted).
struct Fill {
  static constexpr const char* name = "fill";
  TensorRef y;
  float value;
};
Cost cost_of(const Fill&);

/// y = x; same shape, any strides; dtypes may differ between f32 and bf16 (round to nearest even). y may be packed (see
/// packed_bytes), x then being a matrix; what is subnormal becomes 0 there.
struct Copy {
  static constexpr const char* name = "copy";
  TensorRef x, y;
};
Cost cost_of(const Copy&);

/// y = alpha a + beta b; y may be a or b. f32. With beta = 0, b is not read (it may be uninitialised).
struct Add {
  static constexpr const char* name = "add";
  TensorRef a, b, y;
  float alpha = 1.0f, beta = 1.0f;
};
Cost cost_of(const Add&);

/// *flag (i32, one element) becomes 1 if x, f32 or bf16, holds a NaN or an infinity, else it is left alone.
struct FindNonFinite {
  static constexpr const char* name = "find_non_finite";
  TensorRef x, flag;
};
Cost cost_of(const FindNonFinite&);

enum class Activation { gelu, gelu_tanh, relu, tanh, silu };

/// y = f(x), both f32 or both bf16; y may be x.
///   gelu: x Phi(x) with the exact Gaussian distribution; gelu_tanh: its tanh approximation (Hendrycks & Gimpel 2016).
struct ActivationForward {
  static constexpr const char* name = "activation";
  TensorRef x, y;
  Activation f;
};
Cost cost_of(const ActivationForward&);

/// dx (set or add) = f'(x) dy, all of one dtype. For tanh, `x` is the forward's *output*, for all others its input. dx
/// may be dy if set. If y is present it receives f(x), which costs little beside f'(x); it may be x.
struct ActivationBackward {
  static constexpr const char* name = "activation_backward";
  TensorRef x, dy;
  GradRef dx;
  Activation f;
  TensorRef y = {};
};
Cost cost_of(const ActivationBackward&);

/// y (set or add) = x kept ? x / (1 - p) : 0. x is (B, S, F) or (B, F), S taken as 1. `samples` (B) i32 holds each
/// row's sample number for the RNG. Its own backward: the mask is drawn again, never stored. y may be x if set.
struct DropoutApply {
  static constexpr const char* name = "dropout";
  TensorRef x, samples;
  GradRef y;
  Dropout dropout;
};
Cost cost_of(const DropoutApply&);

}  // namespace cald
