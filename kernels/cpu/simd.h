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

#include "engine/base/rng.h"

#include "hwy/foreach_target.h"  // must come before highway.h

#include "hwy/highway.h"

#include "hwy/contrib/math/math-inl.h"

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

/// e^x for every x: Highway's Exp ends at 104, and gives 0 for a NaN.
template <class D>
HWY_INLINE Vec<D> exp_of(D d, Vec<D> x) {
  return IfThenElse(Eq(x, x), Exp(d, Min(x, Set(d, 100.0f))), x);
}

/// erf(x) with an absolute error below 1.2e-7, x not a NaN; *gauss receives exp(-x^2), which it needs anyway.
///
/// Below 1, x P(x^2); above, 1 - exp(-x^2) R(x). P and R are minimax fits of degree 5 and 7: 1.9e-8 and 1.4e-8.
template <class D>
HWY_INLINE Vec<D> erf(D d, Vec<D> x, Vec<D>* gauss) {
  const auto c = [d](float value) HWY_ATTR { return Set(d, value); };
  const Vec<D> a = Abs(x), z = Mul(x, x);
  *gauss = Exp(d, Neg(Min(z, c(100.0f))));
  Vec<D> p = c(-5.4629336e-04f);
  p = MulAdd(p, z, c(4.8707049e-03f));
  p = MulAdd(p, z, c(-2.6663818e-02f));
  p = MulAdd(p, z, c(1.1278064e-01f));
  p = MulAdd(p, z, c(-3.7611939e-01f));
  p = MulAdd(p, z, c(1.1283789e+00f));
  const Vec<D> t = Min(a, c(4.0f));
  Vec<D> r = c(-3.8888294e-04f);
  r = MulAdd(r, t, c(6.0051105e-03f));
  r = MulAdd(r, t, c(-4.0998083e-02f));
  r = MulAdd(r, t, c(1.6413338e-01f));
  r = MulAdd(r, t, c(-4.3167913e-01f));
  r = MulAdd(r, t, c(7.9259429e-01f));
  r = MulAdd(r, t, c(-1.0482103e+00f));
  r = MulAdd(r, t, c(9.8612720e-01f));
  const Vec<D> tail = CopySign(NegMulAdd(*gauss, r, c(1.0f)), x);
  return IfThenElse(Lt(a, c(1.0f)), Mul(x, p), tail);
}

/// Room that fill_dropout_words needs beyond the features asked for.
inline constexpr std::int64_t kDropoutPad = 4 * static_cast<std::int64_t>(MaxLanes(ScalableTag<std::uint64_t>()));

/// out[i] = the word that decides feature first + i of (sample, position), i < n: the bits of dropout_words().
/// `first` is a multiple of 4; out has room for n + kDropoutPad words.
inline void fill_dropout_words(const RngKey& key, std::uint32_t sample, std::uint32_t position, std::uint32_t first,
                               std::int64_t n, std::uint32_t* HWY_RESTRICT out) {
  // Each 64-bit lane holds one counter word in its lower half. Nothing reads the upper halves (MulEven does not, and
  // the end masks them), so the products need no shuffles.
  const ScalableTag<std::uint64_t> d;
  const RepartitionToNarrow<decltype(d)> d32;
  using V = Vec<decltype(d)>;
  const auto low = Set(d32, 0xD2511F53u), high = Set(d32, 0xCD9E8D57u);
  const V lower_half = Set(d, std::uint64_t{0xFFFFFFFFu});
  const auto blocks_at_once = static_cast<std::int64_t>(Lanes(d));
  for (std::int64_t i = 0; i < n; i += 4 * blocks_at_once) {
    V c0 = Iota(d, first / 4 + static_cast<std::uint64_t>(i / 4));
    V c1 = Set(d, std::uint64_t{position}), c2 = Set(d, std::uint64_t{sample}), c3 = Set(d, std::uint64_t{key.op});
    std::uint32_t k0 = static_cast<std::uint32_t>(key.seed) ^ (key.step * 0x9E3779B9u);
    std::uint32_t k1 = static_cast<std::uint32_t>(key.seed >> 32) ^ key.step;
    for (int round = 0; round < 10; ++round) {
      const V p0 = MulEven(BitCast(d32, c0), low), p1 = MulEven(BitCast(d32, c2), high);
      c0 = Xor(Xor(ShiftRight<32>(p1), c1), Set(d, std::uint64_t{k0}));
      c2 = Xor(Xor(ShiftRight<32>(p0), c3), Set(d, std::uint64_t{k1}));
      c1 = p1;
      c3 = p0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    const V first_two = Or(And(c0, lower_half), ShiftLeft<32>(c1));
    const V last_two = Or(And(c2, lower_half), ShiftLeft<32>(c3));
    StoreInterleaved2(first_two, last_two, d, reinterpret_cast<std::uint64_t*>(out + i));
  }
}

/// v / (1 - p) where the word is below the threshold, else 0 (also for a v that is not finite).
template <class D>
HWY_INLINE Vec<D> apply_dropout(D d, Vec<D> v, const std::uint32_t* HWY_RESTRICT words, std::uint32_t threshold,
                                float scale) {
  const RebindToUnsigned<D> du;
  const auto kept = Lt(LoadU(du, words), Set(du, threshold));
  return IfThenElseZero(RebindMask(d, kept), Mul(v, Set(d, scale)));
}

}  // namespace cald::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target section
