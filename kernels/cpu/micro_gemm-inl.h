// Small matrix products on packed panels, from which attention and the low-rank projection are made.
//
// c = a b, where b lies in panels of kPanel columns each: [panel][depth][kPanel], the last one filled up with zeros.
// a's rows are given one by one, so that a may be strided, transposed or gathered without a copy. A tile of c stays in
// registers over the whole depth. Included once per instruction set (see simd.h).
//
// An element of a and b is an f32, or two bf16 that follow one another along the depth, whose products AVX-512 BF16
// adds to an f32 in one instruction. "Depth" counts elements where a function does not say otherwise.
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/simd.h"

#ifndef CALD_KERNELS_CPU_MICRO_GEMM_TYPES_
#define CALD_KERNELS_CPU_MICRO_GEMM_TYPES_
namespace cald {

struct Bf16Pair {
  Bf16 first, second;
};

/// What products of T (f32 or bf16) are made of, and how many T it holds.
template <class T>
struct MicroElement {
  using Type = float;
  static constexpr std::ptrdiff_t kCount = 1;
};
template <>
struct MicroElement<Bf16> {
  using Type = Bf16Pair;
  static constexpr std::ptrdiff_t kCount = 2;
};
template <class T>
using Element = typename MicroElement<T>::Type;
/// The depth of n values T; the last element is filled up with a zero.
template <class T>
constexpr std::ptrdiff_t depth_of(std::ptrdiff_t n) {
  return (n + MicroElement<T>::kCount - 1) / MicroElement<T>::kCount;
}

/// The left operand: element (i, k) lies at row(i)[k * step].
template <class E>
struct MicroLhs {
  const E* base;
  std::ptrdiff_t row_step;  ///< between rows, unless `rows` gives each of them
  std::ptrdiff_t step;      ///< along the depth
  const E* const* rows = nullptr;
  const E* row(std::ptrdiff_t i) const { return rows ? rows[i] : base + i * row_step; }
};

/// Rows to be packed, of f32 or bf16: element (i, j) is row(i)[j].
template <class T>
struct MicroRows {
  const T* base;
  std::ptrdiff_t row_step;
  const T* const* rows = nullptr;
  const T* row(std::ptrdiff_t i) const { return rows ? rows[i] : base + i * row_step; }
};

/// The result: c (set or add) = scale * row_scale[i] * (a b). With `padded`, rows are long enough for whole panels, and
/// what is written behind the last column has no meaning.
struct MicroOut {
  float* base;
  std::ptrdiff_t row_step;
  bool add = false;
  bool padded = false;
  float scale = 1.0f;
  const float* row_scale = nullptr;
};

/// The right operand, packed in panels whose depth is `depth`; a product may use the first part of it.
template <class E>
struct MicroPanels {
  const E* data;
  std::ptrdiff_t depth;
};

/// The widest panel of any instruction set, by which scratch memory is measured.
inline constexpr std::ptrdiff_t kMaxPanel = 32;
constexpr std::ptrdiff_t round_up(std::ptrdiff_t n, std::ptrdiff_t to) { return (n + to - 1) / to * to; }
constexpr std::ptrdiff_t lesser(std::ptrdiff_t a, std::ptrdiff_t b) { return a < b ? a : b; }

}  // namespace cald
#endif

#if defined(CALD_KERNELS_CPU_MICRO_GEMM_INL_) == defined(HWY_TARGET_TOGGLE)
#ifdef CALD_KERNELS_CPU_MICRO_GEMM_INL_
#undef CALD_KERNELS_CPU_MICRO_GEMM_INL_
#else
#define CALD_KERNELS_CPU_MICRO_GEMM_INL_
#endif

HWY_BEFORE_NAMESPACE();
namespace cald::HWY_NAMESPACE {

// A tile has 2 vectors by 6 rows, or by 12 with AVX-512: 12 (24) sums, which hide the latency of the FMAs, and room for
// b in 16 (32) registers.
inline constexpr int kMicroLanes = static_cast<int>(MaxLanes(Floats()));
inline constexpr int kMicroVectors = 2;
inline constexpr int kMicroRows = kMicroLanes == 16 ? 12 : 6;
inline constexpr std::ptrdiff_t kPanel = kMicroVectors * kMicroLanes;

/// Writes one row of a tile.
HWY_INLINE void store_row(const FloatVec* acc, float* c, std::ptrdiff_t cols, float scale, bool add) {
  const Floats d;
  const auto s = Set(d, scale);
  if (cols >= kPanel) {
#pragma GCC unroll 2
    for (int v = 0; v < kMicroVectors; ++v) {
      auto y = Mul(acc[v], s);
      if (add) y = Add(y, LoadU(d, c + v * kMicroLanes));
      StoreU(y, d, c + v * kMicroLanes);
    }
    return;
  }
  HWY_ALIGN float edge[kPanel];
  for (int v = 0; v < kMicroVectors; ++v) Store(Mul(acc[v], s), d, edge + v * kMicroLanes);
  for (std::ptrdiff_t j = 0; j < cols; ++j) c[j] = add ? c[j] + edge[j] : edge[j];
}

HWY_INLINE float as_float(float x) { return x; }
HWY_INLINE float as_float(Bf16 x) { return __builtin_bit_cast(float, static_cast<std::uint32_t>(x.bits) << 16); }

/// How elements are multiplied: acc + a b in every lane.
struct FloatProduct {
  static HWY_INLINE FloatVec add(FloatVec a, FloatVec b, FloatVec acc) { return MulAdd(a, b, acc); }
};
struct PairProduct {
  static HWY_INLINE FloatVec add(FloatVec a, FloatVec b, FloatVec acc) {
    return MulAdd(first(a), first(b), MulAdd(second(a), second(b), acc));
  }

 private:
  static HWY_INLINE FloatVec first(FloatVec x) {
    return BitCast(Floats(), ShiftLeft<16>(BitCast(RebindToUnsigned<Floats>(), x)));
  }
  static HWY_INLINE FloatVec second(FloatVec x) {
    const RebindToUnsigned<Floats> du;
    return BitCast(Floats(), And(BitCast(du, x), Set(du, 0xFFFF0000u)));
  }
};
#if HWY_TARGET == HWY_AVX3
/// By the processor's own instruction; its intrinsic is for functions alone that are compiled for it.
struct NativePairProduct {
  static HWY_INLINE FloatVec add(FloatVec a, FloatVec b, FloatVec acc) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(acc.raw) : "v"(a.raw), "v"(b.raw));
    return acc;
  }
};
#endif

/// An element in every lane.
HWY_INLINE FloatVec broadcast(const float* x) { return Set(Floats(), *x); }
HWY_INLINE FloatVec broadcast(const Bf16Pair* x) {
  return BitCast(Floats(), Set(RebindToUnsigned<Floats>(), __builtin_bit_cast(std::uint32_t, *x)));
}
/// One element for each lane.
HWY_INLINE FloatVec load_elements(const float* x) { return LoadU(Floats(), x); }
HWY_INLINE FloatVec load_elements(const Bf16Pair* x) {
  return BitCast(Floats(), LoadU(RebindToUnsigned<Floats>(), reinterpret_cast<const std::uint32_t*>(x)));
}

/// kRows x kPanel elements of c, of which `rows` x `cols` are written.
template <class Product, int kRows, class E>
HWY_NOINLINE void micro_tile(const MicroLhs<E>& a, const E* HWY_RESTRICT b, const MicroOut& out, std::ptrdiff_t row0,
                             std::ptrdiff_t rows, std::ptrdiff_t col0, std::ptrdiff_t cols, std::ptrdiff_t depth) {
  const Floats d;
  const E* ar[kRows];
  FloatVec acc[kRows][kMicroVectors];
#pragma GCC unroll 12
  for (int i = 0; i < kRows; ++i) {
    ar[i] = a.row(row0 + lesser(i, rows - 1));
#pragma GCC unroll 2
    for (int v = 0; v < kMicroVectors; ++v) acc[i][v] = Zero(d);
  }
  const std::ptrdiff_t step = a.step;
  for (std::ptrdiff_t k = 0, at = 0; k < depth; ++k, at += step, b += kPanel) {
    FloatVec bv[kMicroVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kMicroVectors; ++v) bv[v] = load_elements(b + v * kMicroLanes);
#pragma GCC unroll 12
    for (int i = 0; i < kRows; ++i) {
      const auto x = broadcast(ar[i] + at);
#pragma GCC unroll 2
      for (int v = 0; v < kMicroVectors; ++v) acc[i][v] = Product::add(x, bv[v], acc[i][v]);
    }
  }
  const std::ptrdiff_t width = out.padded ? kPanel : cols;
#pragma GCC unroll 12
  for (int i = 0; i < kRows; ++i) {
    if (i >= rows) break;
    const float scale = out.row_scale ? out.row_scale[row0 + i] * out.scale : out.scale;
    store_row(acc[i], out.base + (row0 + i) * out.row_step + col0, width, scale, out.add);
  }
}

template <class Product, class E>
inline void micro_gemm_by(const MicroLhs<E>& a, const MicroPanels<E>& panels, const MicroOut& out, std::ptrdiff_t rows,
                          std::ptrdiff_t cols, std::ptrdiff_t depth) {
  for (std::ptrdiff_t j = 0; j < cols; j += kPanel) {
    const E* b = panels.data + j * panels.depth;
    const std::ptrdiff_t width = lesser(kPanel, cols - j);
    for (std::ptrdiff_t i = 0; i < rows; i += kMicroRows) {
      const std::ptrdiff_t height = lesser(kMicroRows, rows - i);
      if (height > kMicroRows / 2)
        micro_tile<Product, kMicroRows>(a, b, out, i, height, j, width, depth);
      else
        micro_tile<Product, kMicroRows / 2>(a, b, out, i, height, j, width, depth);
    }
  }
}

/// Scratch memory, which is laid out in units of 4 bytes, as elements.
template <class T>
HWY_INLINE Element<T>* elements(float* scratch) {
  return reinterpret_cast<Element<T>*>(scratch);
}

/// Whether the processor rounds and multiplies pairs of bf16 by itself.
HWY_INLINE bool has_native_pairs() {
#if HWY_TARGET == HWY_AVX3
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

/// c = a b: (rows, depth) by (depth, cols), depth <= panels.depth. A depth of 0 gives zeros.
inline void micro_gemm(const MicroLhs<float>& a, const MicroPanels<float>& panels, const MicroOut& out,
                       std::ptrdiff_t rows, std::ptrdiff_t cols, std::ptrdiff_t depth) {
  micro_gemm_by<FloatProduct>(a, panels, out, rows, cols, depth);
}
inline void micro_gemm(const MicroLhs<Bf16Pair>& a, const MicroPanels<Bf16Pair>& panels, const MicroOut& out,
                       std::ptrdiff_t rows, std::ptrdiff_t cols, std::ptrdiff_t depth) {
#if HWY_TARGET == HWY_AVX3
  if (has_native_pairs()) return micro_gemm_by<NativePairProduct>(a, panels, out, rows, cols, depth);
#endif
  micro_gemm_by<PairProduct>(a, panels, out, rows, cols, depth);
}

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
    auto bits = bf16_bits(load(d, first + j, part));
    if (second) bits = Or(bits, ShiftLeft<16>(bf16_bits(load(d, second + j, part))));
    store(du, bits, reinterpret_cast<std::uint32_t*>(to + j), part);
  });
}
inline void pair_rows(const Bf16* first, const Bf16* second, std::ptrdiff_t n, Bf16Pair* to) {
  const Floats d;
  const RebindToUnsigned<Floats> du;
  const auto bits_of = [&](const Bf16* x, auto part) HWY_ATTR {
    return PromoteTo(du, load(Rebind<std::uint16_t, Floats>(), reinterpret_cast<const std::uint16_t*>(x), part));
  };
  each_vector(d, n, [&](std::int64_t j, auto part) HWY_ATTR {
    auto bits = bits_of(first + j, part);
    if (second) bits = Or(bits, ShiftLeft<16>(bits_of(second + j, part)));
    store(du, bits, reinterpret_cast<std::uint32_t*>(to + j), part);
  });
}

/// A row of n values as pairs; `to` may be `from`.
inline void pair_row(const float* from, std::ptrdiff_t n, Bf16Pair* to) {
  const Floats d;
  auto* out = reinterpret_cast<Bf16*>(to);
  std::ptrdiff_t done = 0;
#if HWY_TARGET == HWY_AVX3
  if (has_native_pairs())
    for (; done + 2 * kMicroLanes <= n; done += 2 * kMicroLanes)
      store_lanes(round_natively(LoadU(d, from + done), LoadU(d, from + done + kMicroLanes)), out + done);
#endif
  each_vector(d, n - done, [&](std::int64_t i, auto part) HWY_ATTR {
    store(d, load(d, from + done + i, part), out + done + i, part);
  });
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

/// y (set or add) = n rows of `buffer`, which is `cols` wide.
template <class T>
inline void write_rows(const float* buffer, T* y, std::ptrdiff_t row_step, std::ptrdiff_t n, std::ptrdiff_t cols,
                       bool add) {
  const Floats d;
  for (std::ptrdiff_t i = 0; i < n; ++i)
    each_vector(d, cols, [&](std::int64_t j, auto part) HWY_ATTR {
      T* to = y + i * row_step + j;
      const FloatVec v = load(d, buffer + i * cols + j, part);
      store(d, add ? Add(load(d, to, part), v) : v, to, part);
    });
}

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
  for (std::ptrdiff_t j = 0; j < cols; j += kPanel) {
    Bf16Pair* to = panels + j * depth_of<Bf16>(rows);
    const std::ptrdiff_t width = lesser(kPanel, cols - j);
    for (std::ptrdiff_t k = 0; k < rows; k += 2, to += kPanel) {
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
  for (std::ptrdiff_t j = 0; j < round_up(cols, kPanel); j += 4) {
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
