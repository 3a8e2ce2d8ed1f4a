// Fill, copy, add, and the test for values that are not finite.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/elementwise.cpp"
#include "kernels/cpu/simd.h"

// After simd.h, which includes this file once for each target.
#include <atomic>
#include <bit>
#include <cstring>
#include <string>

#include "kernels/cpu/gemm_panels.h"
#include "kernels/cpu/strided.h"
#include "kernels/elementwise.h"

HWY_BEFORE_NAMESPACE();
namespace cald::HWY_NAMESPACE {

/// y = alpha a + beta b.
void add_segment(const float* a, const float* b, float* y, std::int64_t n, float alpha, float beta) {
  const Floats d;
  const FloatVec va = Set(d, alpha), vb = Set(d, beta);
  if (alpha == 1.0f && beta == 1.0f)
    each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR {
      store(d, Add(load(d, a + i, part), load(d, b + i, part)), y + i, part);
    });
  else
    each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR {
      store(d, MulAdd(va, load(d, a + i, part), Mul(vb, load(d, b + i, part))), y + i, part);
    });
}

/// y = alpha a.
void scale_segment(const float* a, float* y, std::int64_t n, float alpha) {
  const Floats d;
  each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR {
    store(d, Mul(Set(d, alpha), load(d, a + i, part)), y + i, part);
  });
}

/// True if one of the n values is a NaN or an infinity.
template <class T>
HWY_INLINE bool has_non_finite(const T* x, std::int64_t n) {
  const Floats d;
  // |x - x| > 0 is false and x - x is a NaN exactly for the values sought; a sum of zeros keeps any NaN.
  FloatVec sum = Zero(d);
  each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR {
    const FloatVec v = load(d, x + i, part);
    sum = Add(sum, Sub(v, v));
  });
  return !AllTrue(d, Eq(sum, Zero(d)));
}
bool has_non_finite_f32(const float* x, std::int64_t n) { return has_non_finite(x, n); }
bool has_non_finite_bf16(const Bf16* x, std::int64_t n) { return has_non_finite(x, n); }

/// y = x in y's format.
template <class X, class Y>
HWY_INLINE void convert_segment(const X* x, Y* y, std::int64_t n) {
  const Floats d;
  each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR { store(d, load(d, x + i, part), y + i, part); });
}
void narrow_to_bf16(const float* x, Bf16* y, std::int64_t n) { convert_segment(x, y, n); }
void widen_from_bf16(const Bf16* x, float* y, std::int64_t n) { convert_segment(x, y, n); }

}  // namespace cald::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cald {
HWY_EXPORT(add_segment);
HWY_EXPORT(scale_segment);
HWY_EXPORT(has_non_finite_f32);
HWY_EXPORT(has_non_finite_bf16);
HWY_EXPORT(narrow_to_bf16);
HWY_EXPORT(widen_from_bf16);

namespace {

void check_pair(const char* kernel, const TensorRef& x, const TensorRef& y) {
  if (!(x.shape == y.shape))
    throw Error(std::string(kernel) + ": shapes " + x.shape.str() + " and " + y.shape.str() + " differ");
}

template <class T>
void fill_as(const Exec& exec, const TensorRef& y, T value) {
  static constexpr T zero{};
  const bool is_zero = std::memcmp(&value, &zero, sizeof(T)) == 0;
  Walk<1>({y}, true).each(exec, [&](const std::array<std::int64_t, 1>& at, std::int64_t n) {
    T* to = y.as<T>() + at[0];
    if (is_zero)
      std::memset(to, 0, static_cast<std::size_t>(n) * sizeof(T));
    else
      std::fill_n(to, n, value);
  });
}

template <class T>
void copy_as(const Exec& exec, const TensorRef& x, const TensorRef& y) {
  const Walk<2> walk({x, y}, false);
  const std::int64_t sx = walk.stride(0), sy = walk.stride(1);
  walk.each(exec, [&](const std::array<std::int64_t, 2>& at, std::int64_t n) {
    const T* from = x.as<T>() + at[0];
    T* to = y.as<T>() + at[1];
    if (sx == 1 && sy == 1)
      std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(T));
    else
      for (std::int64_t i = 0; i < n; ++i) to[i * sy] = from[i * sx];
  });
}

/// Calls kernel(x, y, n) for segments of stride 1.
template <class X, class Y, class Kernel>
void convert(const Exec& exec, const TensorRef& x, const TensorRef& y, const Kernel& kernel) {
  Walk<2>({x, y}, true).each(exec, [&](const std::array<std::int64_t, 2>& at, std::int64_t n) {
    kernel(x.as<X>() + at[0], y.as<Y>() + at[1], n);
  });
}

Bf16 to_bf16(float value) {
  Bf16 y{};
  HWY_DYNAMIC_DISPATCH(narrow_to_bf16)(&value, &y, 1);
  return y;
}

}  // namespace

template <>
void run<Device::cpu>(Exec& exec, const Fill& f) {
  switch (f.y.dtype) {
    case DType::f32:
      return fill_as(exec, f.y, f.value);
    case DType::bf16:
      return fill_as(exec, f.y, to_bf16(f.value));
    case DType::i32:
      return fill_as(exec, f.y, static_cast<std::int32_t>(f.value));
    case DType::i64:
      return fill_as(exec, f.y, static_cast<std::int64_t>(f.value));
    case DType::boolean:
      return fill_as(exec, f.y, static_cast<std::uint8_t>(f.value != 0.0f));
  }
}

template <>
void run<Device::cpu>(Exec& exec, const Copy& c) {
  check_pair(Copy::name, c.x, c.y);
  const DType from = c.x.dtype, to = c.y.dtype;
  if (c.x.packing != Packing::none) throw Error("copy: x, of shape " + c.x.shape.str() + ", is packed");
  if (c.y.packing != Packing::none) {
    if (!c.x.is_matrix())
      throw Error("copy: x, of shape " + c.x.shape.str() + ", is to be packed and has no plain rows");
    PanelPacking p = PanelPacking::of(c.x, true);
    (c.y.packing == Packing::forward ? p.forward : p.backward) = c.y.data;
    return pack_panels(exec, p);
  }
  if (from == DType::f32 && to == DType::bf16)
    return convert<float, Bf16>(exec, c.x, c.y, HWY_DYNAMIC_DISPATCH(narrow_to_bf16));
  if (from == DType::bf16 && to == DType::f32)
    return convert<Bf16, float>(exec, c.x, c.y, HWY_DYNAMIC_DISPATCH(widen_from_bf16));
  if (from != to) throw Error(std::string("copy: no conversion from ") + name_of(from) + " to " + name_of(to));
  switch (size_of(from)) {
    case 1:
      return copy_as<std::uint8_t>(exec, c.x, c.y);
    case 2:
      return copy_as<std::uint16_t>(exec, c.x, c.y);
    case 4:
      return copy_as<std::uint32_t>(exec, c.x, c.y);
    default:
      return copy_as<std::uint64_t>(exec, c.x, c.y);
  }
}

template <>
void run<Device::cpu>(Exec& exec, const Add& s) {
  check_pair(Add::name, s.a, s.y);
  if (s.beta == 0.0f) {
    const auto kernel = HWY_DYNAMIC_DISPATCH(scale_segment);
    Walk<2>({s.a, s.y}, true).each(exec, [&](const std::array<std::int64_t, 2>& at, std::int64_t n) {
      kernel(s.a.f32() + at[0], s.y.f32() + at[1], n, s.alpha);
    });
    return;
  }
  check_pair(Add::name, s.b, s.y);
  const auto kernel = HWY_DYNAMIC_DISPATCH(add_segment);
  Walk<3>({s.a, s.b, s.y}, true).each(exec, [&](const std::array<std::int64_t, 3>& at, std::int64_t n) {
    kernel(s.a.f32() + at[0], s.b.f32() + at[1], s.y.f32() + at[2], n, s.alpha, s.beta);
  });
}

template <>
void run<Device::cpu>(Exec& exec, const FindNonFinite& f) {
  const std::atomic_ref<std::int32_t> flag(*f.flag.as<std::int32_t>());
  const auto test = [&](const auto* x, const auto& kernel) {
    Walk<1>({f.x}, true).each(exec, [&](const std::array<std::int64_t, 1>& at, std::int64_t n) {
      if (kernel(x + at[0], n)) flag.store(1, std::memory_order_relaxed);
    });
  };
  if (f.x.dtype == DType::bf16)
    test(f.x.as<Bf16>(), HWY_DYNAMIC_DISPATCH(has_non_finite_bf16));
  else
    test(f.x.f32(), HWY_DYNAMIC_DISPATCH(has_non_finite_f32));
}

}  // namespace cald
#endif  // HWY_ONCE
