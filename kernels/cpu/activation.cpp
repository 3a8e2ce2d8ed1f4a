// Activation functions and their derivatives.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/activation.cpp"
#include "kernels/cpu/simd.h"

// After simd.h, which includes this file once for each target.
#include <string>
#include <type_traits>

#include "kernels/cpu/strided.h"
#include "kernels/elementwise.h"

HWY_BEFORE_NAMESPACE();
namespace cald::HWY_NAMESPACE {

/// x Phi(x) and Phi(x) + x phi(x), with the normal distribution Phi and its density phi. In terms of the upper tail Q,
/// the value is max(x, 0) - |x| Q(|x|), and the slope 1 - h for x >= 0 and h below with h = Q(|x|) - |x| phi(x).
/// Results are T.
template <class T>
struct Gelu {
  /// |x|, beyond 13 (where |x| Q < 1e-37) as 13. The order of the operands keeps a NaN.
  static HWY_INLINE FloatVec magnitude(Floats d, FloatVec x) { return Min(Set(d, 13.0f), Abs(x)); }
  static HWY_INLINE FloatVec tail_of(Floats d, FloatVec a, FloatVec* gauss) {
    if constexpr (std::is_same_v<T, Bf16>) return normal_tail_short(d, a, gauss);
    return normal_tail(d, a, gauss);
  }
  static HWY_INLINE FloatVec value(Floats d, FloatVec x) {
    FloatVec gauss;
    const FloatVec a = magnitude(d, x), tail = tail_of(d, a, &gauss);
    return NegMulAdd(a, tail, Max(Zero(d), x));
  }
  static HWY_INLINE FloatVec slope(Floats d, FloatVec x) {
    FloatVec gauss;
    const FloatVec a = magnitude(d, x), tail = tail_of(d, a, &gauss);
    const FloatVec h = NegMulAdd(a, Mul(gauss, Set(d, 0.39894228f)), tail);
    return IfThenElse(Lt(x, Zero(d)), h, Sub(Set(d, 1.0f), h));
  }
};

/// x s and s (1 + x u' (1 - s)) with s = 1 / (1 + e^-u), u(x) as F says. 1 - s is taken as e^-u s, which loses nothing
/// where s is near 1.
template <class F>
struct Gated {
  static HWY_INLINE FloatVec value(Floats d, FloatVec x) {
    x = Max(Set(d, F::kLeast), x);  // in this order of operands a NaN stays
    return Div(x, Add(Set(d, 1.0f), exp_of(d, Neg(F::inner(d, x)))));
  }
  static HWY_INLINE FloatVec slope(Floats d, FloatVec x) {
    x = Max(Set(d, F::kLeast), Min(Set(d, 80.0f), x));  // the slope is 1 beyond 80
    const FloatVec one = Set(d, 1.0f), e = exp_of(d, Neg(F::inner(d, x))), s = Div(one, Add(one, e));
    return Mul(s, MulAdd(Mul(x, F::inner_slope(d, x)), Mul(e, s), one));
  }
};

struct SiluGate {
  static constexpr float kLeast = -80.0f;  // below it value and slope are 0 but for 1e-33, and e^-u leaves f32
  static HWY_INLINE FloatVec inner(Floats, FloatVec x) { return x; }
  static HWY_INLINE FloatVec inner_slope(Floats d, FloatVec) { return Set(d, 1.0f); }
};

/// 0.5 x (1 + tanh(u / 2)), u = 2 sqrt(2 / pi) (x + 0.044715 x^3), and 0.5 (1 + tanh(u / 2)) = 1 / (1 + e^-u).
struct GeluTanhGate {
  static constexpr float kLeast = -9.5f;  // u = -76
  static constexpr float kA = 1.5957691f, kB = 0.044715f;
  static HWY_INLINE FloatVec inner(Floats d, FloatVec x) {
    return Mul(Mul(Set(d, kA), x), MulAdd(Mul(x, x), Set(d, kB), Set(d, 1.0f)));
  }
  static HWY_INLINE FloatVec inner_slope(Floats d, FloatVec x) {
    return MulAdd(Mul(x, x), Set(d, 3 * kA * kB), Set(d, kA));
  }
};

struct Relu {
  static HWY_INLINE FloatVec value(Floats d, FloatVec x) { return Max(Zero(d), x); }  // this order keeps a NaN
  static HWY_INLINE FloatVec slope(Floats d, FloatVec x) { return IfThenElseZero(Gt(x, Zero(d)), Set(d, 1.0f)); }
};

/// tanh |x| = 1 - 2 / (1 + e^2|x|), and below 0.55, where that cancels, x + x^3 times a minimax fit in x^2 (1e-9). The
/// slope is that at the output y: 1 - y^2.
struct HyperbolicTangent {
  static HWY_INLINE FloatVec value(Floats d, FloatVec x) {
    const FloatVec one = Set(d, 1.0f), a = Abs(x), z = Mul(x, x);
    FloatVec p = Set(d, -6.2824725e-3f);
    p = MulAdd(p, z, Set(d, 2.1077758e-2f));
    p = MulAdd(p, z, Set(d, -5.3853858e-2f));
    p = MulAdd(p, z, Set(d, 1.3332602e-1f));
    p = MulAdd(p, z, Set(d, -3.3333319e-1f));
    const FloatVec near_zero = MulAdd(Mul(p, z), x, x);
    const FloatVec e = exp_of(d, Add(a, a));
    const FloatVec far_off = CopySign(Sub(one, Div(Set(d, 2.0f), Add(one, e))), x);
    return IfThenElse(Lt(a, Set(d, 0.55f)), near_zero, far_off);
  }
  static HWY_INLINE FloatVec slope(Floats d, FloatVec y) {
    const FloatVec one = Set(d, 1.0f);
    return Mul(Sub(one, y), Add(one, y));
  }
};

/// fn(F{}) with the function's struct, for results of T.
template <class T, class Fn>
HWY_INLINE void with_activation(Activation f, Fn fn) {
  switch (f) {
    case Activation::gelu:
      return fn(Gelu<T>{});
    case Activation::gelu_tanh:
      return fn(Gated<GeluTanhGate>{});
    case Activation::relu:
      return fn(Relu{});
    case Activation::tanh:
      return fn(HyperbolicTangent{});
    case Activation::silu:
      return fn(Gated<SiluGate>{});
  }
}

template <class T>
HWY_INLINE void activate_as(const T* x, T* y, std::int64_t n, Activation f) {
  with_activation<T>(f, [&](auto function) HWY_ATTR {
    const Floats d;
    each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR {
      store(d, decltype(function)::value(d, load(d, x + i, part)), y + i, part);
    });
  });
}

void activate_f32(const float* x, float* y, std::int64_t n, Activation f) { activate_as(x, y, n, f); }
void activate_bf16(const Bf16* x, Bf16* y, std::int64_t n, Activation f) { activate_as(x, y, n, f); }

/// dx (set or add) = f'(x) dy, and y = f(x) unless y is null: the compiler computes once what the two share.
template <class T>
HWY_INLINE void activate_backward_as(const T* x, const T* dy, T* dx, T* y, std::int64_t n, Activation f, bool add) {
  with_activation<T>(f, [&](auto function) HWY_ATTR {
    using F = decltype(function);
    const Floats d;
    const auto each = [&](auto finish) HWY_ATTR {
      each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR {
        const FloatVec v = load(d, x + i, part), through = Mul(F::slope(d, v), load(d, dy + i, part));
        finish(i, part, v, through);
      });
    };
    if (y)
      each([&](std::int64_t i, auto part, FloatVec v, FloatVec through) HWY_ATTR {
        store(d, F::value(d, v), y + i, part);
        store(d, add ? Add(load(d, dx + i, part), through) : through, dx + i, part);
      });
    else if (add)
      each([&](std::int64_t i, auto part, FloatVec, FloatVec through)
               HWY_ATTR { store(d, Add(load(d, dx + i, part), through), dx + i, part); });
    else
      each([&](std::int64_t i, auto part, FloatVec, FloatVec through) HWY_ATTR { store(d, through, dx + i, part); });
  });
}

void activate_backward_f32(const float* x, const float* dy, float* dx, float* y, std::int64_t n, Activation f,
                           bool add) {
  activate_backward_as(x, dy, dx, y, n, f, add);
}
void activate_backward_bf16(const Bf16* x, const Bf16* dy, Bf16* dx, Bf16* y, std::int64_t n, Activation f, bool add) {
  activate_backward_as(x, dy, dx, y, n, f, add);
}

}  // namespace cald::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cald {
HWY_EXPORT(activate_f32);
HWY_EXPORT(activate_bf16);
HWY_EXPORT(activate_backward_f32);
HWY_EXPORT(activate_backward_bf16);

namespace {

void check_operand(const char* kernel, const char* operand, const TensorRef& t, const TensorRef& like) {
  if (!(t.shape == like.shape) || t.dtype != like.dtype || (t.dtype != DType::f32 && t.dtype != DType::bf16))
    throw Error(std::string(kernel) + ": " + operand + " is " + name_of(t.dtype) + " " + t.shape.str() + ", wanted " +
                (like.dtype == DType::bf16 ? "bf16 " : "f32 ") + like.shape.str());
}

template <class T, class Kernel>
void forward_as(const Exec& exec, const ActivationForward& a, const Kernel& kernel) {
  Walk<2>({a.x, a.y}, true).each(exec, [&](const std::array<std::int64_t, 2>& at, std::int64_t n) {
    kernel(a.x.as<T>() + at[0], a.y.as<T>() + at[1], n, a.f);
  });
}

template <class T, class Kernel>
void backward_as(const Exec& exec, const ActivationBackward& a, const Kernel& kernel) {
  const TensorRef &dx = a.dx.to, &y = a.y.present ? a.y : a.x;
  Walk<4>({a.x, a.dy, dx, y}, true).each(exec, [&](const std::array<std::int64_t, 4>& at, std::int64_t n) {
    T* const value = a.y.present ? y.as<T>() + at[3] : nullptr;
    kernel(a.x.as<T>() + at[0], a.dy.as<T>() + at[1], dx.as<T>() + at[2], value, n, a.f, a.dx.add);
  });
}

}  // namespace

template <>
void run<Device::cpu>(Exec& exec, const ActivationForward& a) {
  check_operand(ActivationForward::name, "y", a.y, a.x);
  if (a.x.dtype == DType::bf16)
    forward_as<Bf16>(exec, a, HWY_DYNAMIC_DISPATCH(activate_bf16));
  else
    forward_as<float>(exec, a, HWY_DYNAMIC_DISPATCH(activate_f32));
}

template <>
void run<Device::cpu>(Exec& exec, const ActivationBackward& a) {
  check_operand(ActivationBackward::name, "x", a.x, a.dx.to);
  check_operand(ActivationBackward::name, "dy", a.dy, a.dx.to);
  if (a.y.present) check_operand(ActivationBackward::name, "y", a.y, a.dx.to);
  if (a.x.dtype == DType::bf16)
    backward_as<Bf16>(exec, a, HWY_DYNAMIC_DISPATCH(activate_backward_bf16));
  else
    backward_as<float>(exec, a, HWY_DYNAMIC_DISPATCH(activate_backward_f32));
}

}  // namespace cald
#endif  // HWY_ONCE
