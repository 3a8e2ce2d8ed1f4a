// AdamW and the gradients' norm on the CPU: one pass over all parameters, cut into chunks of a fixed size.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/optimizer.cpp"
#include "kernels/cpu/simd.h"

// After simd.h, which includes this file once for each target.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/gemm_panels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/elementwise.h"
#include "kernels/optimizer.h"

#ifndef CALD_KERNELS_CPU_OPTIMIZER
#define CALD_KERNELS_CPU_OPTIMIZER
namespace cald {

/// The factors of one slot's update; see AdamW.
struct AdamWFactors {
  float decay, beta1, beta2, rest1, rest2, eps, step_size, root_correction, grad_scale;
  std::uint32_t noise_key;
};

}  // namespace cald
#endif

HWY_BEFORE_NAMESPACE();
namespace cald::HWY_NAMESPACE {

using Words = RebindToUnsigned<Floats>;

/// rounding_noise() of elements i, i + 1, ...
HWY_INLINE Vec<Words> noise_of(std::uint32_t key, std::int64_t i) {
  const Words du;
  auto h = Mul(Iota(du, static_cast<std::uint32_t>(i)), Set(du, 0x9E3779B9u));
  h = Xor(h, Set(du, key));
  h = Mul(Xor(h, ShiftRight<16>(h)), Set(du, 0x85EBCA6Bu));
  h = Mul(Xor(h, ShiftRight<13>(h)), Set(du, 0xC2B2AE35u));
  return Xor(h, ShiftRight<16>(h));
}
template <class Part>
HWY_INLINE void store_rounded(FloatVec x, Vec<Words> noise, Bf16* p, Part part) {
  const Words du;
  const auto bits = Add(BitCast(du, x), And(noise, Set(du, 0xFFFFu)));
  store(Floats(), BitCast(Floats(), And(bits, Set(du, 0xFFFF0000u))), p, part);
}

/// Elements [at, at + n); without `grad` it is 0. Moment is float or Bf16.
template <class Moment>
void adamw_chunk_as(const AdamWFactors& f, const AdamWSlot& s, const float* grad, std::int64_t at, std::int64_t n) {
  const Floats d;
  float* const value = s.value.f32() + at;
  Moment *const m = s.m.as<Moment>() + at, *const v = s.v.as<Moment>() + at;
  const FloatVec decay = Set(d, f.decay), beta1 = Set(d, f.beta1), beta2 = Set(d, f.beta2), rest1 = Set(d, f.rest1);
  const FloatVec rest2 = Set(d, f.rest2), eps = Set(d, f.eps), step = Set(d, f.step_size);
  const FloatVec root = Set(d, f.root_correction), scale = Set(d, f.grad_scale);
  each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR {
    const FloatVec g = grad != nullptr ? Mul(load(d, grad + i, part), scale) : Zero(d);
    const FloatVec new_m = MulAdd(beta1, load(d, m + i, part), Mul(rest1, g));
    const FloatVec new_v = MulAdd(beta2, load(d, v + i, part), Mul(rest2, Mul(g, g)));
    const FloatVec change = Div(new_m, Add(Div(Sqrt(new_v), root), eps));
    if constexpr (hwy::IsSame<Moment, float>()) {
      store(d, new_m, m + i, part);
      store(d, new_v, v + i, part);
    } else {
      const auto noise = noise_of(f.noise_key, at + i);
      store_rounded(new_m, noise, m + i, part);
      store_rounded(new_v, ShiftRight<16>(noise), v + i, part);
    }
    store(d, NegMulAdd(step, change, Mul(load(d, value + i, part), decay)), value + i, part);  // eq:adamw
  });
}

void adamw_chunk(const AdamWFactors& f, const AdamWSlot& s, const float* grad, std::int64_t at, std::int64_t n) {
  if (s.has_bf16_moments())
    adamw_chunk_as<Bf16>(f, s, grad, at, n);
  else
    adamw_chunk_as<float>(f, s, grad, at, n);
}

/// The sum of squares of n floats, in f64.
double squares_chunk(const float* x, std::int64_t n) {
  const ScalableTag<double> d;
  const Rebind<float, decltype(d)> half;
  const auto square = [&](std::int64_t i, auto part) HWY_ATTR {
    const auto v = PromoteTo(d, load(half, x + i, part));
    return Mul(v, v);
  };
  const auto lanes = static_cast<std::int64_t>(Lanes(d));
  auto s0 = Zero(d), s1 = Zero(d), s2 = Zero(d), s3 = Zero(d);
  std::int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = Add(s0, square(i, Whole{}));
    s1 = Add(s1, square(i + lanes, Whole{}));
    s2 = Add(s2, square(i + 2 * lanes, Whole{}));
    s3 = Add(s3, square(i + 3 * lanes, Whole{}));
  }
  for (; i + lanes <= n; i += lanes) s0 = Add(s0, square(i, Whole{}));
  if (i < n) s1 = Add(s1, square(i, First{n - i}));  // absent lanes read as 0
  return GetLane(SumOfLanes(d, Add(Add(s0, s1), Add(s2, s3))));
}

}  // namespace cald::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cald {
HWY_EXPORT(adamw_chunk);
HWY_EXPORT(squares_chunk);
namespace {

using Slots = std::vector<AdamWSlot>;

constexpr std::int64_t kChunk = 8192, kGrain = 2;

/// Elements of a chunk: whole rows where the gradient is by rows.
std::int64_t chunk_of(const AdamWSlot& s) {
  if (!s.rows.present) return kChunk;
  const std::int64_t cols = std::max<std::int64_t>(1, s.value.cols());
  return std::max<std::int64_t>(1, kChunk / cols) * cols;
}
std::int64_t chunks_of(const AdamWSlot& s) { return (s.value.numel() + chunk_of(s) - 1) / chunk_of(s); }

/// A weight with packed copies is updated strip by strip, and packed while these lie in the cache.
PanelPacking packing_of(const AdamWSlot& s) {
  PanelPacking p = PanelPacking::of(s.value, true);
  p.forward = s.forward.data, p.backward = s.backward.data;
  return p;
}

/// The parts of an update; those of a norm are chunks.
std::int64_t update_parts(const AdamWSlot& s) { return s.has_packed_copies() ? packing_of(s).strips() : chunks_of(s); }
using PartsOf = std::int64_t (*)(const AdamWSlot&);

std::int64_t parts_of(const Slots& slots, PartsOf parts) {
  std::int64_t n = 0;
  for (const AdamWSlot& s : slots) n += parts(s);
  return n;
}

/// Calls fn(slot, its part's number, number in all) for parts [begin, end), counted through all slots.
template <class Fn>
void each_part(const Slots& slots, PartsOf parts, std::int64_t begin, std::int64_t end, const Fn& fn) {
  std::int64_t first = 0;
  for (const AdamWSlot& s : slots) {
    const std::int64_t last = first + parts(s);
    for (std::int64_t i = std::max(begin, first); i < std::min(end, last); ++i) fn(s, i - first, i);
    first = last;
    if (first >= end) return;
  }
}
/// Calls fn(first element, elements) for a chunk.
template <class Fn>
void on_chunk(const AdamWSlot& s, std::int64_t chunk, const Fn& fn) {
  const std::int64_t at = chunk * chunk_of(s);
  fn(at, std::min(chunk_of(s), s.value.numel() - at));
}

/// Elements [at, at + n), whole rows, of a slot whose gradient is by rows.
void update_rows(const AdamWFactors& f, const AdamWSlot& s, std::int64_t at, std::int64_t n) {
  const std::int64_t cols = s.value.cols();
  const auto* rows = s.rows.as<std::int32_t>();
  auto* moved = s.moved.as<std::int32_t>();
  for (; n > 0; at += cols, n -= cols) {
    const std::int64_t r = at / cols;
    if (rows[r] >= 0) moved[r] = 1;
    if (!moved[r] && f.decay == 1.0f) continue;
    const float* grad = rows[r] < 0 ? nullptr : s.grad.f32() + rows[r] * cols;
    HWY_DYNAMIC_DISPATCH(adamw_chunk)(f, s, grad, at, cols);
  }
}

/// The rows that begin among elements [at, at + n) have a gradient.
void mark_rows(const AdamWSlot& s, std::int64_t at, std::int64_t n) {
  const std::int64_t cols = s.value.cols();
  auto* moved = s.moved.as<std::int32_t>();
  std::fill(moved + (at + cols - 1) / cols, moved + (at + n + cols - 1) / cols, 1);
}

/// A chunk of a slot.
void update_chunk(const AdamWFactors& f, const AdamWSlot& s, std::int64_t at, std::int64_t n) {
  if (s.rows.present) return update_rows(f, s, at, n);
  if (s.moved.present) mark_rows(s, at, n);
  HWY_DYNAMIC_DISPATCH(adamw_chunk)(f, s, s.grad.f32() + at, at, n);
}

/// A strip of a slot, and its copies.
void update_strip(const AdamWFactors& f, const AdamWSlot& s, std::int64_t strip) {
  const PanelPacking p = packing_of(s);
  const std::int64_t at = strip * p.kStrip * p.in, n = std::min(p.kStrip * p.in, s.value.numel() - at);
  HWY_DYNAMIC_DISPATCH(adamw_chunk)(f, s, s.grad.f32() + at, at, n);
  pack_strips(p, strip, strip + 1);
}

}  // namespace

template <>
void run<Device::cpu>(Exec& exec, const AdamW& a) {
  const double correction1 = 1.0 - std::pow(a.beta1, static_cast<double>(a.step));
  const double correction2 = 1.0 - std::pow(a.beta2, static_cast<double>(a.step));
  const float scale = a.max_norm > 0.0f ? std::min(1.0f, a.max_norm / (a.norm.f32()[0] + 1e-6f)) : 1.0f;
  parallel_for(exec, parts_of(*a.slots, update_parts), kGrain, [&](std::int64_t begin, std::int64_t end) {
    each_part(*a.slots, update_parts, begin, end, [&](const AdamWSlot& s, std::int64_t part, std::int64_t) {
      const double rate = static_cast<double>(s.learning_rate);
      const AdamWFactors f{static_cast<float>(1.0 - rate * static_cast<double>(s.weight_decay)),
                           static_cast<float>(a.beta1),
                           static_cast<float>(a.beta2),
                           static_cast<float>(1.0 - a.beta1),
                           static_cast<float>(1.0 - a.beta2),
                           a.eps,
                           static_cast<float>(rate / correction1),
                           static_cast<float>(std::sqrt(correction2)),
                           scale,
                           s.noise_key(a.step)};
      if (s.has_packed_copies()) return update_strip(f, s, part);
      on_chunk(s, part, [&](std::int64_t at, std::int64_t n) { update_chunk(f, s, at, n); });
    });
  });
  for (const AdamWSlot& s : *a.slots)
    if (s.forward.present && !s.has_packed_copies()) run<Device::cpu>(exec, Copy{s.value, s.forward});
}

template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const GradientNorm& a) {
  return static_cast<std::size_t>(parts_of(*a.slots, chunks_of)) * sizeof(double);
}

template <>
void run<Device::cpu>(Exec& exec, const GradientNorm& a) {
  const std::int64_t chunks = parts_of(*a.slots, chunks_of);
  auto* sums = static_cast<double*>(exec.workspace);
  parallel_for(exec, chunks, kGrain, [&](std::int64_t begin, std::int64_t end) {
    each_part(*a.slots, chunks_of, begin, end, [&](const AdamWSlot& s, std::int64_t chunk, std::int64_t number) {
      on_chunk(s, chunk, [&](std::int64_t at, std::int64_t n) {
        sums[number] = HWY_DYNAMIC_DISPATCH(squares_chunk)(s.grad.f32() + at, n);
      });
    });
  });
  double total = 0.0;
  for (std::int64_t c = 0; c < chunks; ++c) total += sums[c];
  *a.norm.f32() = static_cast<float>(std::sqrt(total));
}

}  // namespace cald
#endif
