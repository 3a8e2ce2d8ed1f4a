// Functions of elements, for walk.cuh: each moves its operands once between device memory and the processor.
#pragma once
#include "kernels/cuda/convert.cuh"
#include "kernels/cuda/walk.cuh"
#include "kernels/elementwise.h"

namespace cald::cuda {

template <class T>
struct FillElement {
  static constexpr int kVector = kVectorOf<T>;
  T* y;
  T value;

  template <int N>
  __device__ void apply(const std::int64_t (&at)[1]) const {
    store_elements<N>(y + at[0], elements<N>([&](int) { return value; }));
  }
};

template <class T>
struct CopyElement {
  static constexpr int kVector = kVectorOf<T>;
  const T* x;
  T* y;

  template <int N>
  __device__ void apply(const std::int64_t (&at)[2]) const {
    store_elements<N>(y + at[1], load_elements<N>(x + at[0]));
  }
};

template <class X, class Y>
struct ConvertElement {
  static constexpr int kVector = kVectorOf<X, Y>;
  const X* x;
  Y* y;

  template <int N>
  __device__ void apply(const std::int64_t (&at)[2]) const {
    const auto from = load_elements<N>(x + at[0]);
    store_elements<N>(y + at[1], elements<N>([&](int k) { return narrow_to<Y>(widen(from.x[k])); }));
  }
};

struct AddElement {
  static constexpr int kVector = kVectorOf<float>;
  const float *a, *b;
  float* y;
  float alpha, beta;

  template <int N>
  __device__ void apply(const std::int64_t (&at)[3]) const {
    const auto first = load_elements<N>(a + at[0]), second = load_elements<N>(b + at[1]);
    store_elements<N>(y + at[2], elements<N>([&](int k) { return __fmaf_rn(alpha, first.x[k], beta * second.x[k]); }));
  }
};
/// Without b, which may hold anything.
struct ScaleElement {
  static constexpr int kVector = kVectorOf<float>;
  const float* a;
  float* y;
  float alpha;

  template <int N>
  __device__ void apply(const std::int64_t (&at)[2]) const {
    const auto from = load_elements<N>(a + at[0]);
    store_elements<N>(y + at[1], elements<N>([&](int k) { return alpha * from.x[k]; }));
  }
};

/// Whoever finds one sets the flag; it never falls back.
template <class T>
struct FindElement {
  static constexpr int kVector = kVectorOf<T>;
  const T* x;
  std::int32_t* flag;

  template <int N>
  __device__ void apply(const std::int64_t (&at)[1]) const {
    const auto from = load_elements<N>(x + at[0]);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float v = widen(from.x[k]);
      if (!(v - v == 0.0f)) atomicExch(flag, 1);
    }
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
  static constexpr int kVector = kVectorOf<T>;
  const T* x;
  T* y;

  template <int N>
  __device__ void apply(const std::int64_t (&at)[2]) const {
    const auto from = load_elements<N>(x + at[0]);
    store_elements<N>(y + at[1], elements<N>([&](int k) { return narrow_to<T>(activate<kF>(widen(from.x[k]))); }));
  }
};

/// With kValue y = f(x) comes along.
template <Activation kF, class T, bool kValue>
struct ActivateBackwardElement {
  static constexpr int kVector = kVectorOf<T>;
  const T *x, *dy;
  T* dx;
  bool add;
  T* y;

  template <int N>
  __device__ void apply(const std::int64_t (&at)[3 + kValue]) const {
    const auto from = load_elements<N>(x + at[0]), d = load_elements<N>(dy + at[1]);
    Elements<T, N> old;
    if (add) old = load_elements<N>(dx + at[2]);
    store_elements<N>(dx + at[2], elements<N>([&](int k) {
                        const float through = slope<kF>(widen(from.x[k])) * widen(d.x[k]);
                        return narrow_to<T>(add ? widen(old.x[k]) + through : through);
                      }));
    if constexpr (kValue)
      store_elements<N>(y + at[3], elements<N>([&](int k) { return narrow_to<T>(activate<kF>(widen(from.x[k]))); }));
  }
};

}  // namespace cald::cuda
