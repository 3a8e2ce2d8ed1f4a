// How the CPU kernels use Google Highway: one source, compiled for SSE4, AVX2 and AVX-512, chosen at run time.
//
//   #undef HWY_TARGET_INCLUDE
//   #define HWY_TARGET_INCLUDE "kernels/cpu/this_file.cpp"
//   #include "kernels/cpu/simd.h"                    // includes this_file.cpp once for each target
//
//   HWY_BEFORE_NAMESPACE();
//   namespace cald::HWY_NAMESPACE {
//   void scale(const float* x, float* y, std::int64_t n, float s) {
//     const Floats d;
//     each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR {
//       store(d, Mul(load(d, x + i, part), Set(d, s)), y + i, part);
//     });
//   }
//   }
//   HWY_AFTER_NAMESPACE();
//
//   #if HWY_ONCE
//   namespace cald {
//   HWY_EXPORT(scale);
//   ... const auto kernel = HWY_DYNAMIC_DISPATCH(scale);
//       parallel_for(exec, n, grain, [&](auto b, auto e) { kernel(x + b, y + b, e - b, s); });
//   }
//   #endif
//
// Inside the target's namespace call no inline function of the standard library that is not a builtin: the linker
// keeps one copy of it, perhaps the one compiled for AVX-512. Threads, shapes and errors belong into HWY_ONCE.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#if defined(__x86_64__)
#define HWY_BASELINE_TARGETS HWY_SSE4  // the least that runs; without it Highway compiles a slow emulation too
#endif
#endif

#include <cstdint>

#include "engine/base/dtype.h"
#include "engine/base/rng.h"

#include "hwy/foreach_target.h"  // must come before highway.h

#include "hwy/highway.h"

// Included once for each target, hence no #pragma once (Highway's own idiom).
#if defined(CALD_KERNELS_CPU_SIMD_H) == defined(HWY_TARGET_TOGGLE)
#ifdef CALD_KERNELS_CPU_SIMD_H
#undef CALD_KERNELS_CPU_SIMD_H
#else
#define CALD_KERNELS_CPU_SIMD_H
#endif

HWY_BEFORE_NAMESPACE();
namespace cald::HWY_NAMESPACE {
using namespace hwy::HWY_NAMESPACE;  // NOLINT: Highway's operations are found by name
using hwy::HWY_NAMESPACE::Add;       // rather than the launch cald::Add

using Floats = ScalableTag<float>;
using FloatVec = Vec<Floats>;

/// How much of a vector is there: all of it, or the first n lanes.
struct Whole {};
struct First {
  std::int64_t n;
};

template <class D>
HWY_INLINE Vec<D> load(D d, const TFromD<D>* p, Whole) {
  return LoadU(d, p);
}
/// Lanes that are not there read as 0. By way of a buffer: not every target can mask a load without touching memory.
template <class D>
HWY_INLINE Vec<D> load(D d, const TFromD<D>* p, First part) {
  HWY_ALIGN TFromD<D> buffer[MaxLanes(D())] = {};
  __builtin_memcpy(buffer, p, static_cast<std::size_t>(part.n) * sizeof(TFromD<D>));
  return Load(d, buffer);
}
template <class D>
HWY_INLINE void store(D d, Vec<D> v, TFromD<D>* p, Whole) {
  StoreU(v, d, p);
}
template <class D>
HWY_INLINE void store(D d, Vec<D> v, TFromD<D>* p, First part) {
  HWY_ALIGN TFromD<D> buffer[MaxLanes(D())];
  Store(v, d, buffer);
  __builtin_memcpy(p, buffer, static_cast<std::size_t>(part.n) * sizeof(TFromD<D>));
}

/// bf16 in memory, f32 in registers. Stores round to nearest even; a NaN stays one (its payload is cut, its quiet bit
/// set). Highway's own demotion truncates.
template <class Part>
HWY_INLINE FloatVec load(Floats d, const Bf16* p, Part part) {
  const RebindToUnsigned<Floats> du;
  const Rebind<std::uint16_t, Floats> half;
  return BitCast(d, ShiftLeft<16>(PromoteTo(du, load(half, reinterpret_cast<const std::uint16_t*>(p), part))));
}
/// v as bf16, each in the upper half of its lane; the lower half has no meaning.
HWY_INLINE Vec<RebindToUnsigned<Floats>> bf16_in_upper_half(FloatVec v) {
  const RebindToUnsigned<Floats> du;
  const auto bits = BitCast(du, v);
  const auto odd = And(ShiftRight<16>(bits), Set(du, 1u));
  const auto rounded = Add(Add(bits, Set(du, 0x7FFFu)), odd);
  return IfThenElse(RebindMask(du, Eq(v, v)), rounded, Or(bits, Set(du, 0x400000u)));
}
template <class Part>
HWY_INLINE void store(Floats, FloatVec v, Bf16* p, Part part) {
  const Rebind<std::uint16_t, Floats> half;
  store(half, TruncateTo(half, ShiftRight<16>(bf16_in_upper_half(v))), reinterpret_cast<std::uint16_t*>(p), part);
}

/// Calls fn(i, part) for i = 0, Lanes, 2 Lanes ... below n, `part` being Whole or, at the end, First. Each element goes
/// through the same instructions wherever it lies, so that splitting a range does not change its bits.
template <class D, class Fn>
HWY_INLINE void each_vector(D d, std::int64_t n, Fn fn) {
  const auto lanes = static_cast<std::int64_t>(Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) fn(i, Whole{});
  if (i < n) fn(i, First{n - i});
}

/// v with the lanes that are not there set to 0.
HWY_INLINE FloatVec only_part(FloatVec v, Whole) { return v; }
HWY_INLINE FloatVec only_part(FloatVec v, First part) {
  return IfThenElseZero(FirstN(Floats(), static_cast<std::size_t>(part.n)), v);
}

/// The sum of n terms; term(i, part) gives those from i on. Four sums run side by side, to hide the adder's latency;
/// their order is fixed.
template <class Fn>
HWY_INLINE float sum_terms(std::int64_t n, Fn term) {
  const Floats d;
  const auto lanes = static_cast<std::int64_t>(Lanes(d));
  FloatVec s0 = Zero(d), s1 = Zero(d), s2 = Zero(d), s3 = Zero(d);
  std::int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = Add(s0, term(i, Whole{}));
    s1 = Add(s1, term(i + lanes, Whole{}));
    s2 = Add(s2, term(i + 2 * lanes, Whole{}));
    s3 = Add(s3, term(i + 3 * lanes, Whole{}));
  }
  for (; i + lanes <= n; i += lanes) s0 = Add(s0, term(i, Whole{}));
  if (i < n) s1 = Add(s1, only_part(term(i, First{n - i}), First{n - i}));
  return GetLane(SumOfLanes(d, Add(Add(s0, s1), Add(s2, s3))));
}

/// e^x for x up to 88.7, with a relative error below 1.5e-7: 0 below -87.7, infinity above 88.4, NaN for a NaN.
/// (Highway's Exp ends at 104 and gives 0 for a NaN.)
///
/// x = n ln 2 + f, |f| <= ln(2) / 2 (Cody and Waite's reduction in two steps); e^f = 1 + f + f^2 times a minimax fit of
/// degree 4. Adding 1.5 * 2^23 rounds x / ln 2 to n and leaves n in the low bits, from where it moves to the exponent.
template <class D>
HWY_INLINE Vec<D> exp_bounded(D d, Vec<D> x) {
  const RebindToUnsigned<D> du;
  const Vec<D> magic = Set(d, 12582912.0f);
  x = Max(Set(d, -88.0f), x);  // in this order of operands a NaN stays
  const Vec<D> shifted = MulAdd(x, Set(d, 1.44269504f), magic);
  const Vec<D> n = Sub(shifted, magic);
  const Vec<D> f = NegMulAdd(n, Set(d, -2.12194440e-4f), NegMulAdd(n, Set(d, 0.693359375f), x));
  Vec<D> p = Set(d, 1.3814466e-3f);
  p = MulAdd(p, f, Set(d, 8.3687808e-3f));
  p = MulAdd(p, f, Set(d, 4.1668393e-2f));
  p = MulAdd(p, f, Set(d, 1.6666520e-1f));
  p = MulAdd(p, f, Set(d, 4.9999994e-1f));
  p = MulAdd(p, f, Set(d, 1.0f));
  p = MulAdd(p, f, Set(d, 1.0f));
  const auto power = Add(ShiftLeft<23>(BitCast(du, shifted)), Set(du, 0x3F800000u));  // 2^n; n = -127: 0, 128: infinity
  return Mul(p, BitCast(d, power));
}

/// The same for every x.
template <class D>
HWY_INLINE Vec<D> exp_of(D d, Vec<D> x) {
  return exp_bounded(d, Min(Set(d, 88.7f), x));
}

/// The normal distribution's upper tail Q(a) = 1 - Phi(a) for 0 <= a <= 13, with an absolute error below 1.2e-7 and a
/// relative one below 2e-6 up to 6; *gauss receives exp(-a^2 / 2).
///
/// Q(a) = exp(-a^2 / 2) R(a): Mills' ratio R is smooth and fitted by a rational function to 3e-8 on [0, 6].
template <class D>
HWY_INLINE Vec<D> normal_tail(D d, Vec<D> a, Vec<D>* gauss) {
  *gauss = exp_bounded(d, Mul(Mul(a, Set(d, -0.5f)), a));
  Vec<D> p = Set(d, 0.013586453f);
  p = MulAdd(p, a, Set(d, 0.10427114f));
  p = MulAdd(p, a, Set(d, 0.33420610f));
  p = MulAdd(p, a, Set(d, 0.49999997f));
  Vec<D> q = Set(d, 0.034077071f);
  q = MulAdd(q, a, Set(d, 0.26081026f));
  q = MulAdd(q, a, Set(d, 0.87850821f));
  q = MulAdd(q, a, Set(d, 1.46629322f));
  q = MulAdd(q, a, Set(d, 1.0f));
  return Mul(*gauss, Div(p, q));
}

/// 1 / x with a relative error below 2^-14.
template <class D>
HWY_INLINE Vec<D> reciprocal(D d, Vec<D> x) {
#if HWY_TARGET == HWY_AVX3
  return ApproximateReciprocal(x);
#else
  return Div(Set(d, 1.0f), x);
#endif
}

/// 2^(a b) for -126 < a b < 127, NaN for a NaN; `fit` are the coefficients of a polynomial for 2^f, |f| <= 1/2, the
/// highest power's first. a b is split into n + f as in exp_bounded(), and n is added to the exponent of 2^f.
template <class D, class... Fit>
HWY_INLINE Vec<D> power_of_two(D d, Vec<D> a, Vec<D> b, float leading, Fit... fit) {
  const RebindToUnsigned<D> du;
  const Vec<D> magic = Set(d, 12582912.0f), shifted = MulAdd(a, b, magic), n = Sub(shifted, magic);
  const Vec<D> f = MulSub(a, b, n);
  Vec<D> e = Set(d, leading);
  ((e = MulAdd(e, f, Set(d, fit))), ...);
  return BitCast(d, Add(BitCast(du, e), ShiftLeft<23>(BitCast(du, shifted))));
}

/// normal_tail() for results that will be rounded to bf16, at half its cost: relative errors below 2^-12.
///
/// Here Mills' ratio is a polynomial in t = 1 / (1 + 0.375 a) (the form of Abramowitz and Stegun, 7.1.26), fitted to
/// 2.7e-5; exp(-a^2 / 2) is a power of two with a fit of degree 3 to 7.5e-5.
template <class D>
HWY_INLINE Vec<D> normal_tail_short(D d, Vec<D> a, Vec<D>* gauss) {
  const Vec<D> rate = Set(d, -0.72134752f);  // -1 / (2 ln 2)
  *gauss = power_of_two(d, Mul(a, a), rate, 0.055171341f, 0.24261117f, 0.69326103f, 0.99992806f);
  const Vec<D> t = reciprocal(d, MulAdd(a, Set(d, 0.375f), Set(d, 1.0f)));
  Vec<D> r = Set(d, -0.091346316f);
  r = MulAdd(r, t, Set(d, 0.20184633f));
  r = MulAdd(r, t, Set(d, 0.082350791f));
  r = MulAdd(r, t, Set(d, 0.15811759f));
  r = MulAdd(r, t, Set(d, 0.14901982f));
  return Mul(*gauss, Mul(r, t));
}

/// Room that fill_dropout_bits needs beyond the features asked for.
inline constexpr std::int64_t kDropoutPad = 16 * static_cast<std::int64_t>(MaxLanes(ScalableTag<std::uint64_t>()));

/// out[i] = what decides feature first + i of (sample, position), i < n, as dropout_bits() has it. `first` is a
/// multiple of 8; out has room for n + kDropoutPad numbers.
inline void fill_dropout_bits(const RngKey& key, std::uint32_t sample, std::uint32_t position, std::uint32_t first,
                              std::int64_t n, std::uint16_t* HWY_RESTRICT out) {
  // Each 64-bit lane holds one counter word in its lower half. Nothing reads the upper halves (MulEven does not, and
  // the end masks them), so the products need no shuffles. Two sets of counters hide the multiplier's latency.
  const ScalableTag<std::uint64_t> d;
  const RepartitionToNarrow<decltype(d)> d32;
  using V = Vec<decltype(d)>;
  const auto low = Set(d32, 0xD2511F53u), high = Set(d32, 0xCD9E8D57u);
  const V lower_half = Set(d, std::uint64_t{0xFFFFFFFFu});
  const auto lanes = static_cast<std::int64_t>(Lanes(d));
  const auto round_of = [&](V& c0, V& c1, V& c2, V& c3, V k0, V k1) HWY_ATTR {
    const V p0 = MulEven(BitCast(d32, c0), low), p1 = MulEven(BitCast(d32, c2), high);
    c0 = Xor(Xor(ShiftRight<32>(p1), c1), k0);
    c2 = Xor(Xor(ShiftRight<32>(p0), c3), k1);
    c1 = p1;
    c3 = p0;
  };
  const auto write = [&](V c0, V c1, V c2, V c3, std::uint16_t* to) HWY_ATTR {
    const V first_two = Or(And(c0, lower_half), ShiftLeft<32>(c1));
    const V last_two = Or(And(c2, lower_half), ShiftLeft<32>(c3));
    StoreInterleaved2(first_two, last_two, d, reinterpret_cast<std::uint64_t*>(to));
  };
  for (std::int64_t i = 0; i < n; i += 16 * lanes) {
    V a0 = Iota(d, first / 8 + static_cast<std::uint64_t>(i / 8));
    V b0 = Add(a0, Set(d, static_cast<std::uint64_t>(lanes)));
    V a1 = Set(d, std::uint64_t{position}), a2 = Set(d, std::uint64_t{sample}), a3 = Set(d, std::uint64_t{key.op});
    V b1 = a1, b2 = a2, b3 = a3;
    std::uint32_t k0 = static_cast<std::uint32_t>(key.seed) ^ (key.step * 0x9E3779B9u);
    std::uint32_t k1 = static_cast<std::uint32_t>(key.seed >> 32) ^ key.step;
    for (int round = 0; round < kDropoutRounds; ++round) {
      const V v0 = Set(d, std::uint64_t{k0}), v1 = Set(d, std::uint64_t{k1});
      round_of(a0, a1, a2, a3, v0, v1);
      round_of(b0, b1, b2, b3, v0, v1);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    write(a0, a1, a2, a3, out + i);
    write(b0, b1, b2, b3, out + i + 8 * lanes);
  }
}

/// v where its bits are below the threshold, else 0 (also for a v that is not finite).
template <class D>
HWY_INLINE Vec<D> drop(D d, Vec<D> v, const std::uint16_t* HWY_RESTRICT bits, std::uint32_t threshold) {
  const RebindToSigned<D> di;
  const auto drawn = PromoteTo(di, LoadU(Rebind<std::uint16_t, D>(), bits));
  return IfThenElseZero(RebindMask(d, Lt(drawn, Set(di, static_cast<std::int32_t>(threshold)))), v);
}
/// The same, times the scale.
template <class D>
HWY_INLINE Vec<D> apply_dropout(D d, Vec<D> v, const std::uint16_t* HWY_RESTRICT bits, std::uint32_t threshold,
                                float scale) {
  return drop(d, Mul(v, Set(d, scale)), bits, threshold);
}

}  // namespace cald::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target section
