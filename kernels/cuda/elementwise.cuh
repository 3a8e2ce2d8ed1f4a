// Functions of one element, for walk.cuh: each moves its operands once between device memory and the processor.
#pragma once
#include "kernels/cuda/convert.cuh"
#include "kernels/cuda/walk.cuh"
#include "kernels/elementwise.h"

namespace cald::cuda {

template <class T>
struct FillElement {
  T* y;
  T value;
  __device__ void operator()(const std::int64_t (&at)[1]) const { y[at[0]] = value; }
};

template <class T>
struct CopyElement {
  const T* x;
  T* y;
  __device__ void operator()(const std::int64_t (&at)[2]) const { y[at[1]] = x[at[0]]; }
};

template <class X, class Y>
struct ConvertElement {
  const X* x;
  Y* y;
  __device__ void operator()(const std::int64_t (&at)[2]) const { y[at[1]] = narrow_to<Y>(widen(x[at[0]])); }
};

struct AddElement {
  const float *a, *b;
  float* y;
  float alpha, beta;
  __device__ void operator()(const std::int64_t (&at)[3]) const {
    y[at[2]] = __fmaf_rn(alpha, a[at[0]], beta * b[at[1]]);
  }
};
/// Without b, which may hold anything.
struct ScaleElement {
  const float* a;
  float* y;
  float alpha;
  __device__ void operator()(const std::int64_t (&at)[2]) const { y[at[1]] = alpha * a[at[0]]; }
};

/// Whoever finds one sets the flag; it never falls back.
template <class T>
struct FindElement {
  const T* x;
  std::int32_t* flag;
  __device__ void operator()(const std::int64_t (&at)[1]) const {
    const float v = widen(x[at[0]]);
    if (!(v - v == 0.0f)) atomicExch(flag, 1);
  }
};

/// The normal distribution, by the complementary error function: no cancellation in the lower tail.
__device__ __forceinline__ float normal_cdf(float x) { return 0.5f * erfcf(-0.70710678f * x); }

template <Activation kF>
__device__ __forceinline__ float activate(float x) {
  if constexpr (kF == Activation::gelu) return x * normal_cdf(x);
  if constexpr (kF == Activation::gelu_tanh)
    return 0.5f * x * (1.0f + tanhf(0.79788456f * x * (1.0f + 0.044715f * x * x)));
  if constexpr (kF == Activation::relu) return x < 0.0f ? 0.0f : x;
  if constexpr (kF == Activation::tanh) return tanhf(x);
  if constexpr (kF == Activation::silu) return x / (1.0f + expf(-x));
}

/// f'(x); of tanh, x is the output.
template <Activation kF>
__device__ __forceinline__ float slope(float x) {
  if constexpr (kF == Activation::gelu) return normal_cdf(x) + x * (0.39894228f * expf(-0.5f * x * x));
  if constexpr (kF == Activation::gelu_tanh) {
    const float square = x * x, t = tanhf(0.79788456f * x * (1.0f + 0.044715f * square)), rest = 1.0f - t * t;
    // Where tanh is one the inner derivative may be infinite.
    const float inner = 0.79788456f * (1.0f + 3.0f * 0.044715f * square);
    return 0.5f * (1.0f + t) + (rest == 0.0f ? 0.0f : 0.5f * x * rest * inner);
  }
  if constexpr (kF == Activation::relu) return x > 0.0f ? 1.0f : 0.0f;
  if constexpr (kF == Activation::tanh) return 1.0f - x * x;
  if constexpr (kF == Activation::silu) {
    const float gate = 1.0f / (1.0f + expf(-x)), rest = 1.0f / (1.0f + expf(x));  // 1 - gate would cancel
    return gate * (1.0f + x * rest);
  }
}

template <Activation kF, class T>
struct ActivateElement {
  const T* x;
  T* y;
  __device__ void operator()(const std::int64_t (&at)[2]) const {
    y[at[1]] = narrow_to<T>(activate<kF>(widen(x[at[0]])));
  }
};

template <Activation kF, class T>
struct ActivateBackwardElement {
  const T *x, *dy;
  T* dx;
  bool add;
  __device__ void operator()(const std::int64_t (&at)[3]) const {
    const float d = slope<kF>(widen(x[at[0]])) * widen(dy[at[1]]);
    T& to = dx[at[2]];
    to = narrow_to<T>(add ? widen(to) + d : d);
  }
};

}  // namespace cald::cuda
