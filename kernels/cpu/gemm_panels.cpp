// Packing for oneDNN's products. Given rows a product packs them itself, again for each thread and each block of the
// result's rows; oneDNN's own conversion to panels reaches a third of the memory's bandwidth.
#include "kernels/cpu/gemm_panels.h"

#include <algorithm>
#include <cstring>

#include "engine/base/error.h"
#include "kernels/cpu/interleaved.h"
#include "kernels/cpu/parallel.h"

#if defined(__x86_64__)
#include <immintrin.h>

// GCC takes the undefined lanes of its own intrinsics for a mistake (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#define CALD_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512bf16")))

namespace cald {
namespace {

constexpr int kRows = PanelPacking::kStrip, kCols = 32;  // of a block: 16 registers of 16 pairs
constexpr std::ptrdiff_t kPairs = GemmPanels::kWidth;    // of a panel's row
constexpr std::ptrdiff_t kBytesAhead = 1024;

/// Sixteen pairs of values that follow one another in a row.
CALD_AVX512_BF16 inline __m512i load_pairs(const float* x) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x)));
}
CALD_AVX512_BF16 inline __m512i load_pairs(const Bf16* x) { return _mm512_loadu_si512(x); }

template <bool kLasting>
CALD_AVX512_BF16 inline void store_line(__m512i v, std::uint32_t* to) {
  if constexpr (kLasting)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), v);
  else
    _mm512_store_si512(to, v);
}

/// Column i of the 16 x 16 matrix of pairs becomes row i.
CALD_AVX512_BF16 inline void transpose(__m512i (&r)[kRows]) {
  __m512i t[kRows];
  for (int i = 0; i < kRows; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < kRows; i += 4)
    for (int j = 0; j < 2; ++j) {
      r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
      r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
    }
  // r[4 i + j] now holds columns j, j + 4, j + 8 and j + 12 of rows 4 i to 4 i + 3.
  for (int j = 0; j < 4; ++j) {
    const __m512i a = _mm512_shuffle_i32x4(r[j], r[j + 4], 0x88), b = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0x88);
    const __m512i c = _mm512_shuffle_i32x4(r[j], r[j + 4], 0xDD), d = _mm512_shuffle_i32x4(r[j + 8], r[j + 12], 0xDD);
    t[j] = _mm512_shuffle_i32x4(a, b, 0x88);
    t[j + 8] = _mm512_shuffle_i32x4(a, b, 0xDD);
    t[j + 4] = _mm512_shuffle_i32x4(c, d, 0x88);
    t[j + 12] = _mm512_shuffle_i32x4(c, d, 0xDD);
  }
  for (int i = 0; i < kRows; ++i) r[i] = t[i];
}

/// Where a block goes: to rows of the one's panel, 16 pairs of each, and to 8 rows of the other's, 32 pairs of each.
struct BlockTarget {
  std::uint32_t *forward, *backward;  ///< null: not wanted
};

template <bool kLasting, class T>
CALD_AVX512_BF16 inline void pack_block(const T* x, std::ptrdiff_t step, const BlockTarget& to) {
  __m512i r[kRows];
  for (int i = 0; i < kRows; ++i) {
    const T* const row = x + i * step;
    r[i] = load_pairs(row);
    // 16 rows at a time are more than the processor foresees.
    for (int line = 0; line < static_cast<int>(kCols * sizeof(T)); line += 64)
      _mm_prefetch(reinterpret_cast<const char*>(row) + kBytesAhead + line, _MM_HINT_T0);
  }
  if (to.backward) {
    const __m512i lower = _mm512_load_si512(kInterleaved.half[0]), upper = _mm512_load_si512(kInterleaved.half[1]);
    for (int i = 0; i < kRows; i += 2) {
      std::uint32_t* const row = to.backward + i / 2 * kPairs;
      store_line<kLasting>(_mm512_permutex2var_epi16(r[i], lower, r[i + 1]), row);
      store_line<kLasting>(_mm512_permutex2var_epi16(r[i], upper, r[i + 1]), row + 16);
    }
  }
  if (to.forward) {
    transpose(r);
    for (int i = 0; i < kRows; ++i) store_line<kLasting>(r[i], to.forward + i * kPairs);
  }
}

template <bool kLasting, class T>
CALD_AVX512_BF16 void pack_strip(const PanelPacking& p, std::int64_t strip) {
  const std::int64_t row = strip * kRows, rows = std::clamp<std::int64_t>(p.out - row, 0, kRows);
  const GemmPanels forward{p.in, p.out}, backward{p.out, p.in};
  const std::int64_t forward_depth = forward.padded_rows() / 2, backward_depth = backward.padded_rows() / 2;
  for (std::int64_t col = 0; col < backward.padded_cols(); col += kCols) {
    BlockTarget to{};
    if (p.forward && col < forward.padded_rows())
      to.forward =
          static_cast<std::uint32_t*>(p.forward) + (row / kPairs * forward_depth + col / 2) * kPairs + row % kPairs;
    if (p.backward && row < backward.padded_rows())
      to.backward =
          static_cast<std::uint32_t*>(p.backward) + (col / kPairs * backward_depth + row / 2) * kPairs + col % kPairs;
    const std::int64_t cols = std::clamp<std::int64_t>(p.in - col, 0, kCols);
    const T* const x = static_cast<const T*>(p.weight) + row * p.step + col;
    if (rows == kRows && cols == kCols) {
      pack_block<kLasting>(x, p.step, to);
    } else {
      T edge[kRows][kCols] = {};
      for (std::int64_t i = 0; i < rows; ++i)
        std::memcpy(edge[i], x + i * p.step, static_cast<std::size_t>(cols) * sizeof(T));
      pack_block<kLasting>(edge[0], kCols, to);
    }
  }
}

}  // namespace

void pack_strips(const PanelPacking& p, std::int64_t begin, std::int64_t end) {
  const bool f32 = p.dtype == DType::f32;
  const auto pack = p.lasting ? (f32 ? pack_strip<true, float> : pack_strip<true, Bf16>)
                              : (f32 ? pack_strip<false, float> : pack_strip<false, Bf16>);
  // The last one brings the zeros behind it.
  if (end == p.strips()) end = GemmPanels{p.in, p.out}.padded_cols() / kRows;
  for (std::int64_t i = begin; i < end; ++i) pack(p, i);
  _mm_sfence();
}

}  // namespace cald
#else
namespace cald {

void pack_strips(const PanelPacking&, std::int64_t, std::int64_t) {
  throw Error("gemm: panels of bf16 are for x86 processors");
}

}  // namespace cald
#endif

namespace cald {

void pack_panels(const Exec& exec, const PanelPacking& p) {
  const std::int64_t strips_of_20_us = std::max<std::int64_t>(1, 200000 / (PanelPacking::kStrip * (p.in + 1)));
  parallel_for(exec, p.strips(), strips_of_20_us,
               [&](std::int64_t begin, std::int64_t end) { pack_strips(p, begin, end); });
}

}  // namespace cald
