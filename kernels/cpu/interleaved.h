// How two vectors of 32 bf16 are interleaved by AVX-512's two-operand permutation (vpermt2w).
#pragma once
#include <cstdint>

namespace cald {

/// Lanes of the first vector count from 0, those of the second from 32: 0, 32, 1, 33, ..., the first half of the result
/// and the second.
struct InterleavedLanes {
  alignas(64) std::uint16_t half[2][32];
  constexpr InterleavedLanes() : half{} {
    for (std::uint16_t h = 0; h < 2; ++h)
      for (std::uint16_t i = 0; i < 32; ++i) half[h][i] = static_cast<std::uint16_t>(16 * h + i / 2 + 32 * (i % 2));
  }
};
inline constexpr InterleavedLanes kInterleaved;

}  // namespace cald
