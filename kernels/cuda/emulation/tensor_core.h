// Emulation of the instructions that CUDA C++ reaches by inline PTX: cp.async, ldmatrix and mma. device.cuh declares
// the same names over the real instructions.
#pragma once
#include <cstdint>

#include "kernels/cuda/emulation/scheduler.h"

namespace cald::emulation {
// Each takes the address of the kernel's code for the observer, from the inlined wrappers below.
void copy_async(void* shared, const void* global, bool valid, const Location& at);
void wait_copies(unsigned groups_in_flight);
void load_matrix(std::uint32_t* registers, int count, bool transposed, const void* row, const Location& at);
void mma_bf16(float* d, const std::uint32_t* a, const std::uint32_t* b, const Location& at);
void mma_tf32(float* d, const std::uint32_t* a, const std::uint32_t* b, const Location& at);
}  // namespace cald::emulation

namespace cald::cuda {

[[gnu::always_inline]] inline void cp_async16(void* shared, const void* global, bool valid = true,
                                              const emulation::Location& at = emulation::Location::current()) {
  emulation::copy_async(shared, global, valid, at);
}
inline void cp_async_commit() { ++emulation::async_copies().group; }
template <int kInFlight>
[[gnu::always_inline]] inline void cp_async_wait() {
  emulation::wait_copies(kInFlight);
}

template <int kCount, bool kTransposed = false>
[[gnu::always_inline]] inline void ldmatrix(std::uint32_t (&r)[kCount], const void* row,
                                            const emulation::Location& at = emulation::Location::current()) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4);
  emulation::load_matrix(r, kCount, kTransposed, row, at);
}

inline void mma_bf16_16x8x16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                             const emulation::Location& at = emulation::Location::current()) {
  emulation::mma_bf16(d, a, b, at);
}
inline void mma_tf32_16x8x8(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                            const emulation::Location& at = emulation::Location::current()) {
  emulation::mma_tf32(d, a, b, at);
}

/// The bits of x rounded to tf32, halves away from zero (cvt.rna.tf32.f32).
inline std::uint32_t to_tf32(float x) {
  const auto bits = __builtin_bit_cast(std::uint32_t, x);
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
}

}  // namespace cald::cuda
