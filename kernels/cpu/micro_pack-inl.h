// Operands for micro_gemm-inl.h: rounding to pairs of bf16, and packing into panels. Included once per instruction set
// (see simd.h).
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/interleaved.h"
#include "kernels/cpu/micro_gemm-inl.h"
#include "kernels/cpu/simd.h"

#if defined(CALD_KERNELS_CPU_MICRO_PACK_INL_) == defined(HWY_TARGET_TOGGLE)
#ifdef CALD_KERNELS_CPU_MICRO_PACK_INL_
#undef CALD_KERNELS_CPU_MICRO_PACK_INL_
#else
#define CALD_KERNELS_CPU_MICRO_PACK_INL_
#endif

HWY_BEFORE_NAMESPACE();
namespace cald::HWY_NAMESPACE {

#if HWY_TARGET == HWY_AVX3
using Bf16Lanes = Vec<ScalableTag<std::uint16_t>>;
/// Two vectors rounded to bf16 by the processor's own instruction, `low` in the lower half. Subnormal numbers become 0,
/// which they are to its products too.
HWY_INLINE Bf16Lanes round_natively(FloatVec low, FloatVec high) {
  Bf16Lanes out;
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(out.raw) : "v"(low.raw), "v"(high.raw));
  return out;
}
HWY_INLINE void store_lanes(Bf16Lanes v, void* to) {
  StoreU(v, ScalableTag<std::uint16_t>(), static_cast<std::uint16_t*>(to));
}
/// Lane i of the lower half beside lane i of the upper one.
HWY_INLINE Bf16Lanes interleave_halves(Bf16Lanes v) {
  HWY_ALIGN static constexpr std::uint16_t kOrder[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                         8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return Bf16Lanes{_mm512_permutexvar_epi16(_mm512_load_si512(kOrder), v.raw)};
}
/// Lanes 0 of a and b, lanes 1 and so on, as far as they fill a vector; with `last` those of the upper halves.
HWY_INLINE Bf16Lanes interleave(Bf16Lanes a, Bf16Lanes b, bool last) {
  return Bf16Lanes{_mm512_permutex2var_epi16(a.raw, _mm512_load_si512(kInterleaved.half[last]), b.raw)};
}
#endif

/// `to` = n columns of two rows as pairs; a second row of null is zeros.
inline void pair_rows(const float* first, const float* second, std::ptrdiff_t n, Bf16Pair* to) {
  const Floats d;
  const RebindToUnsigned<Floats> du;
  std::ptrdiff_t done = 0;
#if HWY_TARGET == HWY_AVX3
  if (has_native_pairs())
    for (; done + kMicroLanes <= n; done += kMicroLanes) {
      const FloatVec other = second ? LoadU(d, second + done) : Zero(d);
      store_lanes(interleave_halves(round_natively(LoadU(d, first + done), other)), to + done);
    }
#endif
  each_vector(d, n - done, [&](std::int64_t i, auto part) HWY_ATTR {
    const std::int64_t j = done + i;
    auto bits = ShiftRight<16>(bf16_in_upper_half(load(d, first + j, part)));
    if (second) bits = Or(bits, And(bf16_in_upper_half(load(d, second + j, part)), Set(du, 0xFFFF0000u)));
    store(du, bits, reinterpret_cast<std::uint32_t*>(to + j), part);
  });
}
inline void pair_rows(const Bf16* first, const Bf16* second, std::ptrdiff_t n, Bf16Pair* to) {
  const Floats d;
  const RebindToUnsigned<Floats> du;
  std::ptrdiff_t done = 0;
#if HWY_TARGET == HWY_AVX3
  const ScalableTag<std::uint16_t> d16;
  for (; done + 2 * kMicroLanes <= n; done += 2 * kMicroLanes) {
    const Bf16Lanes a = LoadU(d16, reinterpret_cast<const std::uint16_t*>(first + done));
    const Bf16Lanes b = second ? LoadU(d16, reinterpret_cast<const std::uint16_t*>(second + done)) : Zero(d16);
    store_lanes(interleave(a, b, false), to + done);
    store_lanes(interleave(a, b, true), to + done + kMicroLanes);
  }
#endif
  const auto bits_of = [&](const Bf16* x, auto part) HWY_ATTR {
    return PromoteTo(du, load(Rebind<std::uint16_t, Floats>(), reinterpret_cast<const std::uint16_t*>(x), part));
  };
  each_vector(d, n - done, [&](std::int64_t i, auto part) HWY_ATTR {
    const std::int64_t j = done + i;
    auto bits = bits_of(first + j, part);
    if (second) bits = Or(bits, ShiftLeft<16>(bits_of(second + j, part)));
    store(du, bits, reinterpret_cast<std::uint32_t*>(to + j), part);
  });
}

/// Two vectors rounded to bf16, one behind the other.
HWY_INLINE void store_rounded(FloatVec low, FloatVec high, Bf16* to) {
#if HWY_TARGET == HWY_AVX3
  if (has_native_pairs()) return store_lanes(round_natively(low, high), to);
#endif
  store(Floats(), low, to, Whole{});
  store(Floats(), high, to + kMicroLanes, Whole{});
}

/// A row of n values rounded to bf16; `to` may be where `from` is.
HWY_INLINE void round_row(const float* from, std::ptrdiff_t n, Bf16* to) {
  const Floats d;
  std::ptrdiff_t done = 0;
  for (; done + 2 * kMicroLanes <= n; done += 2 * kMicroLanes)
    store_rounded(LoadU(d, from + done), LoadU(d, from + done + kMicroLanes), to + done);
  each_vector(d, n - done, [&](std::int64_t i, auto part) HWY_ATTR {
    store(d, load(d, from + done + i, part), to + done + i, part);
  });
}

/// A row of n values as pairs; `to` may be `from`.
inline void pair_row(const float* from, std::ptrdiff_t n, Bf16Pair* to) {
  auto* out = reinterpret_cast<Bf16*>(to);
  round_row(from, n, out);
  if (n % 2) out[n] = Bf16{};
}
inline void pair_row(const Bf16* from, std::ptrdiff_t n, Bf16Pair* to) {
  __builtin_memcpy(static_cast<void*>(to), from, static_cast<std::size_t>(n) * sizeof(Bf16));
  if (n % 2) reinterpret_cast<Bf16*>(to)[n] = Bf16{};
}

/// A row of bf16 as a row of elements: in place, or in `buffer` where a pair would be half a pair.
HWY_INLINE const float* left_row(const float* x, std::ptrdiff_t, float*) { return x; }
HWY_INLINE const Bf16Pair* left_row(const Bf16* x, std::ptrdiff_t n, Bf16Pair* buffer) {
  if (n % 2 == 0) return reinterpret_cast<const Bf16Pair*>(x);
  pair_row(x, n, buffer);
  return buffer;
}

/// The first n rows of x, `cols` wide, as a left operand, in place where that can be, else in `buffer` (n, depth).
HWY_INLINE MicroLhs<float> left_rows(const MicroRows<float>& x, std::ptrdiff_t, std::ptrdiff_t, float*) {
  return {x.row(0), x.row_step, 1};
}
inline MicroLhs<Bf16Pair> left_rows(const MicroRows<Bf16>& x, std::ptrdiff_t n, std::ptrdiff_t cols, Bf16Pair* buffer) {
  if (cols % 2 == 0 && x.row_step % 2 == 0) return {reinterpret_cast<const Bf16Pair*>(x.row(0)), x.row_step / 2, 1};
  const std::ptrdiff_t depth = depth_of<Bf16>(cols);
  for (std::ptrdiff_t i = 0; i < n; ++i) pair_row(x.row(i), cols, buffer + i * depth);
  return {buffer, depth, 1};
}

/// n rows of f32 sums, `cols` wide (even), as a left operand of another product; for bf16 they are rounded in place.
HWY_INLINE MicroLhs<float> left_sums(float* x, std::ptrdiff_t step, std::ptrdiff_t, std::ptrdiff_t, const float*) {
  return {x, step, 1};
}
inline MicroLhs<Bf16Pair> left_sums(float* x, std::ptrdiff_t step, std::ptrdiff_t n, std::ptrdiff_t cols,
                                    const Bf16Pair*) {
  for (std::ptrdiff_t i = 0; i < n; ++i) pair_row(x + i * step, cols, reinterpret_cast<Bf16Pair*>(x + i * step));
  return {reinterpret_cast<const Bf16Pair*>(x), step, 1};
}

/// The same, transposed: a (cols, n) operand; bf16 by way of `buffer` (depth of n, step).
HWY_INLINE MicroLhs<float> left_transposed(const float* x, std::ptrdiff_t step, std::ptrdiff_t, std::ptrdiff_t,
                                           float*) {
  return {x, 1, step};
}
inline MicroLhs<Bf16Pair> left_transposed(const float* x, std::ptrdiff_t step, std::ptrdiff_t n, std::ptrdiff_t cols,
                                          Bf16Pair* buffer) {
  for (std::ptrdiff_t i = 0; i < n; i += 2)
    pair_rows(x + i * step, i + 1 < n ? x + (i + 1) * step : nullptr, cols, buffer + i / 2 * step);
  return {buffer, 1, step};
}

/// y (set or add) = n rows of `buffer`, which is `cols` wide, rounded to bf16.
inline void write_rows(const float* buffer, Bf16* y, std::ptrdiff_t row_step, std::ptrdiff_t n, std::ptrdiff_t cols,
                       bool add) {
  const Floats d;
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    Bf16* row = y + i * row_step;
    if (!add)
      round_row(buffer + i * cols, cols, row);
    else
      each_vector(d, cols, [&](std::int64_t j, auto part) HWY_ATTR {
        store(d, Add(load(d, row + j, part), load(d, buffer + i * cols + j, part)), row + j, part);
      });
  }
}

/// Asks for `count` rows of x from `begin` on, as far as there are (`rows`, `cols` wide), to be brought into the cache.
/// Rows of one head lie far apart, where the processor does not foresee them.
template <class T>
HWY_INLINE void prefetch_rows(const MicroRows<T>& x, std::ptrdiff_t begin, std::ptrdiff_t count, std::ptrdiff_t rows,
                              std::ptrdiff_t cols) {
  constexpr auto kLine = static_cast<std::ptrdiff_t>(64 / sizeof(T));
  for (std::ptrdiff_t i = begin; i < lesser(begin + count, rows); ++i) {
    for (std::ptrdiff_t j = 0; j < cols; j += kLine) __builtin_prefetch(x.row(i) + j);
    __builtin_prefetch(x.row(i) + cols - 1);
  }
}
/// Rows that packing asks for ahead of the one at hand.
inline constexpr std::ptrdiff_t kRowsAhead = 32;

/// Packs b, `depth` rows of `cols` f32: panels[j / kPanel][k][j % kPanel] = b.row(k)[j].
inline void pack_rows(const MicroRows<float>& b, std::ptrdiff_t depth, std::ptrdiff_t cols, float* panels) {
  const Floats d;
  for (std::ptrdiff_t j = 0; j < cols; j += kPanel) {
    float* to = panels + j * depth;
    const std::ptrdiff_t width = lesser(kPanel, cols - j);
    for (std::ptrdiff_t k = 0; k < depth; ++k, to += kPanel) {
      const float* from = b.row(k) + j;
      if (width == kPanel) {
        for (int v = 0; v < kMicroVectors; ++v) StoreU(LoadU(d, from + v * kMicroLanes), d, to + v * kMicroLanes);
      } else {
        __builtin_memcpy(to, from, static_cast<std::size_t>(width) * sizeof(float));
        __builtin_memset(to + width, 0, static_cast<std::size_t>(kPanel - width) * sizeof(float));
      }
    }
  }
}
/// The same for `rows` rows of bf16, two of which make a row of pairs.
inline void pack_rows(const MicroRows<Bf16>& b, std::ptrdiff_t rows, std::ptrdiff_t cols, Bf16Pair* panels) {
  prefetch_rows(b, 0, kRowsAhead, rows, cols);
  for (std::ptrdiff_t j = 0; j < cols; j += kPanel) {
    Bf16Pair* to = panels + j * depth_of<Bf16>(rows);
    const std::ptrdiff_t width = lesser(kPanel, cols - j);
    for (std::ptrdiff_t k = 0; k < rows; k += 2, to += kPanel) {
      if (j == 0) prefetch_rows(b, k + kRowsAhead, 2, rows, cols);
      pair_rows(b.row(k) + j, k + 1 < rows ? b.row(k + 1) + j : nullptr, width, to);
      __builtin_memset(static_cast<void*>(to + width), 0, static_cast<std::size_t>(kPanel - width) * sizeof(Bf16Pair));
    }
  }
}

/// Element k of a row of n values.
HWY_INLINE float element_of(const float* row, std::ptrdiff_t k, std::ptrdiff_t) { return row[k]; }
HWY_INLINE Bf16Pair element_of(const Bf16* row, std::ptrdiff_t k, std::ptrdiff_t n) {
  return {row[2 * k], 2 * k + 1 < n ? row[2 * k + 1] : Bf16{}};
}

/// Transposes the 4 x 4 block of elements at `rows` + k to `to`, whose rows are kPanel apart. Nothing is computed:
/// pairs pass as the f32 that have their bits.
template <class E>
HWY_INLINE void transpose_4x4(const E* const* rows, std::ptrdiff_t k, E* to) {
  const FixedTag<float, 4> d;
  const Repartition<double, decltype(d)> wide;
  const auto from = [&](int i) HWY_ATTR { return LoadU(d, reinterpret_cast<const float*>(rows[i] + k)); };
  const auto r0 = from(0), r1 = from(1), r2 = from(2), r3 = from(3);
  const auto a = BitCast(wide, InterleaveLower(d, r0, r1)), b = BitCast(wide, InterleaveLower(d, r2, r3));
  const auto p = BitCast(wide, InterleaveUpper(d, r0, r1)), q = BitCast(wide, InterleaveUpper(d, r2, r3));
  auto* out = reinterpret_cast<float*>(to);
  StoreU(BitCast(d, InterleaveLower(wide, a, b)), d, out);
  StoreU(BitCast(d, InterleaveUpper(wide, a, b)), d, out + kPanel);
  StoreU(BitCast(d, InterleaveLower(wide, p, q)), d, out + 2 * kPanel);
  StoreU(BitCast(d, InterleaveUpper(wide, p, q)), d, out + 3 * kPanel);
}

/// Packs the transpose of b, `cols` rows of n values: panels[j / kPanel][k][j % kPanel] = element k of b.row(j).
template <class T>
inline void pack_transposed(const MicroRows<T>& b, std::ptrdiff_t n, std::ptrdiff_t cols, Element<T>* panels) {
  using E = Element<T>;
  const std::ptrdiff_t depth = depth_of<T>(n), whole = n / MicroElement<T>::kCount;
  prefetch_rows(b, 0, kRowsAhead, cols, n);
  for (std::ptrdiff_t j = 0; j < round_up(cols, kPanel); j += 4) {
    prefetch_rows(b, j + kRowsAhead, 4, cols, n);
    E* to = panels + j / kPanel * kPanel * depth + j % kPanel;
    const std::ptrdiff_t width = lesser(4, cols - j);
    std::ptrdiff_t k = 0;
    if (width == 4) {
      const E* rows[4];
      for (int c = 0; c < 4; ++c) rows[c] = reinterpret_cast<const E*>(b.row(j + c));
      for (; k + 4 <= whole; k += 4) transpose_4x4(rows, k, to + k * kPanel);
    }
    for (; k < depth; ++k)
      for (std::ptrdiff_t c = 0; c < 4; ++c) to[k * kPanel + c] = c < width ? element_of(b.row(j + c), k, n) : E{};
  }
}

}  // namespace cald::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
