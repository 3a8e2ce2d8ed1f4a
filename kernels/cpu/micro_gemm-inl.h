// Small matrix products on packed panels, from which attention and the low-rank projection are made.
//
// c = a b, where b lies in panels of kPanel columns each: [panel][depth][kPanel], the last one filled up with zeros.
// a's rows are given one by one, so that a may be strided, transposed or gathered without a copy. A tile of c stays in
// registers over the whole depth. Included once per instruction set (see simd.h).
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/simd.h"

#ifndef CALD_KERNELS_CPU_MICRO_GEMM_TYPES_
#define CALD_KERNELS_CPU_MICRO_GEMM_TYPES_
namespace cald {

/// The left operand: element (i, k) lies at row(i)[k * step].
struct MicroLhs {
  const float* base;
  std::ptrdiff_t row_step;  ///< between rows, unless `rows` gives each of them
  std::ptrdiff_t step;      ///< along the depth
  const float* const* rows = nullptr;
  const float* row(std::ptrdiff_t i) const { return rows ? rows[i] : base + i * row_step; }
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
struct MicroPanels {
  const float* data;
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

/// kRows x kPanel elements of c, of which `rows` x `cols` are written.
template <int kRows>
HWY_NOINLINE void micro_tile(const MicroLhs& a, const float* HWY_RESTRICT b, const MicroOut& out, std::ptrdiff_t row0,
                             std::ptrdiff_t rows, std::ptrdiff_t col0, std::ptrdiff_t cols, std::ptrdiff_t depth) {
  const Floats d;
  const float* ar[kRows];
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
    for (int v = 0; v < kMicroVectors; ++v) bv[v] = LoadU(d, b + v * kMicroLanes);
#pragma GCC unroll 12
    for (int i = 0; i < kRows; ++i) {
      const auto x = Set(d, ar[i][at]);
#pragma GCC unroll 2
      for (int v = 0; v < kMicroVectors; ++v) acc[i][v] = MulAdd(x, bv[v], acc[i][v]);
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

/// c = a b: (rows, depth) by (depth, cols), depth <= panels.depth. A depth of 0 gives zeros.
inline void micro_gemm(const MicroLhs& a, const MicroPanels& panels, const MicroOut& out, std::ptrdiff_t rows,
                       std::ptrdiff_t cols, std::ptrdiff_t depth) {
  for (std::ptrdiff_t j = 0; j < cols; j += kPanel) {
    const float* b = panels.data + j * panels.depth;
    const std::ptrdiff_t width = lesser(kPanel, cols - j);
    for (std::ptrdiff_t i = 0; i < rows; i += kMicroRows) {
      const std::ptrdiff_t height = lesser(kMicroRows, rows - i);
      if (height > kMicroRows / 2)
        micro_tile<kMicroRows>(a, b, out, i, height, j, width, depth);
      else
        micro_tile<kMicroRows / 2>(a, b, out, i, height, j, width, depth);
    }
  }
}

HWY_INLINE float as_float(float x) { return x; }
HWY_INLINE float as_float(Bf16 x) { return __builtin_bit_cast(float, static_cast<std::uint32_t>(x.bits) << 16); }

/// Rows [begin, begin + n) of x, `cols` wide, as a left operand: f32 in place, bf16 by way of `buffer` (n, cols).
HWY_INLINE MicroLhs left_rows(const MicroRows<float>& x, std::ptrdiff_t begin, std::ptrdiff_t, std::ptrdiff_t, float*) {
  return {x.row(begin), x.row_step, 1};
}
inline MicroLhs left_rows(const MicroRows<Bf16>& x, std::ptrdiff_t begin, std::ptrdiff_t n, std::ptrdiff_t cols,
                          float* buffer) {
  const Floats d;
  for (std::ptrdiff_t i = 0; i < n; ++i)
    each_vector(d, cols, [&](std::int64_t j, auto part) HWY_ATTR {
      store(d, load(d, x.row(begin + i) + j, part), buffer + i * cols + j, part);
    });
  return {buffer, cols, 1};
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

/// Packs b (depth, cols) given by its rows: panels[j / kPanel][k][j % kPanel] = b.row(k)[j].
template <class T>
inline void pack_rows(const MicroRows<T>& b, std::ptrdiff_t depth, std::ptrdiff_t cols, float* panels) {
  const Floats d;
  for (std::ptrdiff_t j = 0; j < cols; j += kPanel) {
    float* to = panels + j * depth;
    const std::ptrdiff_t width = lesser(kPanel, cols - j);
    for (std::ptrdiff_t k = 0; k < depth; ++k, to += kPanel) {
      const T* from = b.row(k) + j;
      if (width == kPanel) {
        for (int v = 0; v < kMicroVectors; ++v)
          StoreU(load(d, from + v * kMicroLanes, Whole{}), d, to + v * kMicroLanes);
      } else {
        for (std::ptrdiff_t c = 0; c < width; ++c) to[c] = as_float(from[c]);
        for (std::ptrdiff_t c = width; c < kPanel; ++c) to[c] = 0.0f;
      }
    }
  }
}

template <class D>
HWY_INLINE Vec<D> load_floats(D d, const float* p) {
  return LoadU(d, p);
}
template <class D>
HWY_INLINE Vec<D> load_floats(D d, const Bf16* p) {
  const Rebind<std::uint16_t, D> half;
  const RebindToUnsigned<D> du;
  return BitCast(d, ShiftLeft<16>(PromoteTo(du, LoadU(half, reinterpret_cast<const std::uint16_t*>(p)))));
}

/// Transposes the 4 x 4 block at `rows` + k to `to`, whose rows are kPanel apart.
template <class T>
HWY_INLINE void transpose_4x4(const T* const* rows, std::ptrdiff_t k, float* to) {
  const FixedTag<float, 4> d;
  const Repartition<double, decltype(d)> wide;
  const auto r0 = load_floats(d, rows[0] + k), r1 = load_floats(d, rows[1] + k);
  const auto r2 = load_floats(d, rows[2] + k), r3 = load_floats(d, rows[3] + k);
  const auto a = BitCast(wide, InterleaveLower(d, r0, r1)), b = BitCast(wide, InterleaveLower(d, r2, r3));
  const auto p = BitCast(wide, InterleaveUpper(d, r0, r1)), q = BitCast(wide, InterleaveUpper(d, r2, r3));
  StoreU(BitCast(d, InterleaveLower(wide, a, b)), d, to);
  StoreU(BitCast(d, InterleaveUpper(wide, a, b)), d, to + kPanel);
  StoreU(BitCast(d, InterleaveLower(wide, p, q)), d, to + 2 * kPanel);
  StoreU(BitCast(d, InterleaveUpper(wide, p, q)), d, to + 3 * kPanel);
}

/// Packs the transpose of b (cols, depth): panels[j / kPanel][k][j % kPanel] = b.row(j)[k].
template <class T>
inline void pack_transposed(const MicroRows<T>& b, std::ptrdiff_t depth, std::ptrdiff_t cols, float* panels) {
  for (std::ptrdiff_t j = 0; j < round_up(cols, kPanel); j += 4) {
    float* to = panels + j / kPanel * kPanel * depth + j % kPanel;
    const std::ptrdiff_t width = lesser(4, cols - j);
    std::ptrdiff_t k = 0;
    if (width == 4) {
      const T* rows[4] = {b.row(j), b.row(j + 1), b.row(j + 2), b.row(j + 3)};
      for (; k + 4 <= depth; k += 4) transpose_4x4(rows, k, to + k * kPanel);
    }
    for (; k < depth; ++k)
      for (std::ptrdiff_t c = 0; c < 4; ++c) to[k * kPanel + c] = c < width ? as_float(b.row(j + c)[k]) : 0.0f;
  }
}

}  // namespace cald::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
