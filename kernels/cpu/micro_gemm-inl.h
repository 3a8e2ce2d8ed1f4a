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
      if (height > kMicroRows * 2 / 3)
        micro_tile<Product, kMicroRows>(a, b, out, i, height, j, width, depth);
      else if (height > kMicroRows / 2)
        micro_tile<Product, kMicroRows * 2 / 3>(a, b, out, i, height, j, width, depth);
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

}  // namespace cald::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
