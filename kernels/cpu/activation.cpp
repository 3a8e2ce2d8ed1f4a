// Activation functions and their derivatives.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/activation.cpp"
#include "kernels/cpu/simd.h"

// After simd.h, which includes this file once for each target.
#include <string>

#include "kernels/cpu/strided.h"
#include "kernels/elementwise.h"

HWY_BEFORE_NAMESPACE();
namespace cald::HWY_NAMESPACE {

/// x Phi(x) and Phi(x) + x phi(x), with the normal distribution Phi and its density phi.
struct Gelu {
  static HWY_INLINE FloatVec value(Floats d, FloatVec x) {
    FloatVec gauss;
    const FloatVec e = erf(d, Mul(x, Set(d, 0.70710678f)), &gauss);
    const FloatVec half = Mul(x, Set(d, 0.5f));
    return MulAdd(half, e, half);
  }
  static HWY_INLINE FloatVec slope(Floats d, FloatVec x) {
    FloatVec gauss;
    const FloatVec e = erf(d, Mul(x, Set(d, 0.70710678f)), &gauss), half = Set(d, 0.5f);
    const FloatVec phi = Mul(gauss, Set(d, 0.39894228f));
    return MulAdd(x, phi, MulAdd(half, e, half));
  }
};

/// 0.5 x (1 + tanh(u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
struct GeluTanh {
  static constexpr float kA = 0.79788456f, kB = 0.044715f;
  static HWY_INLINE FloatVec inner(Floats d, FloatVec x) {
    const FloatVec cubed = Mul(Mul(x, x), x);
    return Tanh(d, Mul(Set(d, kA), MulAdd(Set(d, kB), cubed, x)));
  }
  static HWY_INLINE FloatVec value(Floats d, FloatVec x) {
    const FloatVec half = Mul(x, Set(d, 0.5f));
    return MulAdd(half, inner(d, x), half);
  }
  static HWY_INLINE FloatVec slope(Floats d, FloatVec x) {
    x = Max(Set(d, -20.0f), Min(Set(d, 20.0f), x));  // x^2 must stay finite; a NaN stays one in this order
    const FloatVec one = Set(d, 1.0f), half = Set(d, 0.5f), t = inner(d, x);
    const FloatVec du = Mul(Set(d, kA), MulAdd(Set(d, 3 * kB), Mul(x, x), one));
    const FloatVec sech2 = Mul(Sub(one, t), Add(one, t));
    return MulAdd(Mul(Mul(half, x), sech2), du, MulAdd(half, t, half));
  }
};

struct Relu {
  static HWY_INLINE FloatVec value(Floats d, FloatVec x) { return Max(Zero(d), x); }  // this order keeps a NaN
  static HWY_INLINE FloatVec slope(Floats d, FloatVec x) { return IfThenElseZero(Gt(x, Zero(d)), Set(d, 1.0f)); }
};

/// The slope is that at the output y: 1 - y^2.
struct HyperbolicTangent {
  static HWY_INLINE FloatVec value(Floats d, FloatVec x) { return IfThenElse(Eq(x, x), Tanh(d, x), x); }
  static HWY_INLINE FloatVec slope(Floats d, FloatVec y) {
    const FloatVec one = Set(d, 1.0f);
    return Mul(Sub(one, y), Add(one, y));
  }
};

/// x s and s (1 + x (1 - s)), s = 1 / (1 + e^-x). 1 - s is taken as e^-x s, which loses nothing where s is near 1.
struct Silu {
  /// Below -80 both are 0 but for 1e-33, while e^-x leaves f32. The order of the operands keeps a NaN.
  static HWY_INLINE FloatVec clamped(Floats d, FloatVec x) { return Max(Set(d, -80.0f), x); }
  static HWY_INLINE FloatVec value(Floats d, FloatVec x) {
    x = clamped(d, x);
    return Div(x, Add(Set(d, 1.0f), Exp(d, Neg(x))));
  }
  static HWY_INLINE FloatVec slope(Floats d, FloatVec x) {
    x = clamped(d, x);
    const FloatVec one = Set(d, 1.0f), e = Exp(d, Neg(x)), s = Div(one, Add(one, e));
    return Mul(s, MulAdd(x, Mul(e, s), one));
  }
};

/// fn(F{}) with the function's struct.
template <class Fn>
HWY_INLINE void with_activation(Activation f, Fn fn) {
  switch (f) {
    case Activation::gelu:
      return fn(Gelu{});
    case Activation::gelu_tanh:
      return fn(GeluTanh{});
    case Activation::relu:
      return fn(Relu{});
    case Activation::tanh:
      return fn(HyperbolicTangent{});
    case Activation::silu:
      return fn(Silu{});
  }
}

void activate(const float* x, float* y, std::int64_t n, Activation f) {
  with_activation(f, [&](auto function) HWY_ATTR {
    const Floats d;
    each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR {
      store(d, decltype(function)::value(d, load(d, x + i, part)), y + i, part);
    });
  });
}

void activate_backward(const float* x, const float* dy, float* dx, std::int64_t n, Activation f, bool add) {
  with_activation(f, [&](auto function) HWY_ATTR {
    const Floats d;
    const auto gradient = [&](std::int64_t i, auto part) HWY_ATTR {
      return Mul(decltype(function)::slope(d, load(d, x + i, part)), load(d, dy + i, part));
    };
    if (add)
      each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR {
        store(d, Add(load(d, dx + i, part), gradient(i, part)), dx + i, part);
      });
    else
      each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR { store(d, gradient(i, part), dx + i, part); });
  });
}

}  // namespace cald::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cald {
HWY_EXPORT(activate);
HWY_EXPORT(activate_backward);

template <>
void run<Device::cpu>(Exec& exec, const ActivationForward& a) {
  if (!(a.x.shape == a.y.shape)) throw Error("activation: x " + a.x.shape.str() + " and y " + a.y.shape.str());
  const auto kernel = HWY_DYNAMIC_DISPATCH(activate);
  Walk<2>({a.x, a.y}, true).each(exec, [&](const std::array<std::int64_t, 2>& at, std::int64_t n) {
    kernel(a.x.f32() + at[0], a.y.f32() + at[1], n, a.f);
  });
}

template <>
void run<Device::cpu>(Exec& exec, const ActivationBackward& a) {
  const TensorRef& dx = a.dx.to;
  if (!(a.x.shape == dx.shape && a.dy.shape == dx.shape))
    throw Error("activation_backward: x " + a.x.shape.str() + ", dy " + a.dy.shape.str() + ", dx " + dx.shape.str());
  const auto kernel = HWY_DYNAMIC_DISPATCH(activate_backward);
  Walk<3>({a.x, a.dy, dx}, true).each(exec, [&](const std::array<std::int64_t, 3>& at, std::int64_t n) {
    kernel(a.x.f32() + at[0], a.dy.f32() + at[1], dx.f32() + at[2], n, a.f, a.dx.add);
  });
}

}  // namespace cald
#endif  // HWY_ONCE
