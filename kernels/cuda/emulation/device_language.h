// The CUDA C++ device language for g++: built-in functions with their CUDA names, executed by the scheduler. Kernels
// see it through device.cuh. Only what kernels here use is declared; the rest fails to compile.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/cuda/emulation/memory.h"
#include "kernels/cuda/emulation/observer.h"
#include "kernels/cuda/emulation/scheduler.h"
#include "kernels/cuda/emulation/tensor_core.h"
#include "kernels/cuda/emulation/warp.h"

#define __launch_bounds__(...)
// A plain __shared__ variable would be each thread's own here; device.cuh has the macros that work in both builds.
#undef __shared__
#define __shared__ static_assert(false, "use CALD_SHARED or CALD_DYNAMIC_SHARED");

#define CALD_EMULATION_AT const cald::emulation::Location& at = cald::emulation::Location::current()

constexpr int warpSize = 32;

// ---- barriers ----
inline void __syncthreads(CALD_EMULATION_AT) { cald::emulation::block_barrier("__syncthreads", 0, at); }
inline int __syncthreads_count(int predicate, CALD_EMULATION_AT) {
  return cald::emulation::block_barrier("__syncthreads_count", predicate, at).chosen;
}
inline int __syncthreads_or(int predicate, CALD_EMULATION_AT) {
  return cald::emulation::block_barrier("__syncthreads_or", predicate, at).chosen > 0;
}
inline int __syncthreads_and(int predicate, CALD_EMULATION_AT) {
  const auto arrivals = cald::emulation::block_barrier("__syncthreads_and", predicate, at);
  return arrivals.chosen == arrivals.threads;
}
inline void __syncwarp(unsigned mask = ~0u, CALD_EMULATION_AT) {
  cald::emulation::collective("__syncwarp", mask, nullptr, nullptr, at);
}
inline void __threadfence_block() {}
inline void __threadfence() { cald::emulation::note_fence(); }

// ---- shuffles and votes ----
namespace cald::emulation {
template <class T>
T shuffled(const char* op, unsigned mask, T value, int source, const Location& at) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  shuffle(op, mask, &value, sizeof(T), source, at);
  return value;
}
}  // namespace cald::emulation

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = warpSize, CALD_EMULATION_AT) {
  return cald::emulation::shuffled("__shfl_sync", mask, value, cald::emulation::shuffle_index(lane, width), at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, CALD_EMULATION_AT) {
  return cald::emulation::shuffled("__shfl_up_sync", mask, value, cald::emulation::shuffle_up(delta, width), at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, CALD_EMULATION_AT) {
  return cald::emulation::shuffled("__shfl_down_sync", mask, value, cald::emulation::shuffle_down(delta, width), at);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize, CALD_EMULATION_AT) {
  return cald::emulation::shuffled("__shfl_xor_sync", mask, value, cald::emulation::shuffle_xor(bits, width), at);
}
inline int __any_sync(unsigned mask, int predicate, CALD_EMULATION_AT) {
  return cald::emulation::vote("__any_sync", mask, predicate, at).yes != 0;
}
inline int __all_sync(unsigned mask, int predicate, CALD_EMULATION_AT) {
  const auto v = cald::emulation::vote("__all_sync", mask, predicate, at);
  return v.yes == v.lanes;
}
inline unsigned __ballot_sync(unsigned mask, int predicate, CALD_EMULATION_AT) {
  return cald::emulation::vote("__ballot_sync", mask, predicate, at).yes;
}
inline unsigned __activemask() { return cald::emulation::live_lanes(); }

// ---- atomics: one host thread, so a plain read and write that only the observer must not take for one ----
namespace cald::emulation {
template <class T>
[[gnu::noinline, gnu::no_sanitize("thread")]] T exchange_hidden(T* p, T value, bool store) {
  const T old = *p;
  if (store) *p = value;
  return old;
}

template <class T, class Update>
[[gnu::always_inline]] inline T atomic(T* p, const Update& update) {
  note_atomic(p, sizeof(T));
  const T old = exchange_hidden(p, T{}, false);
  exchange_hidden(p, static_cast<T>(update(old)), true);
  return old;
}
}  // namespace cald::emulation

#define CALD_EMULATION_ATOMIC(name, expression)                                \
  template <class T>                                                           \
  [[gnu::always_inline]] inline T name(T* p, std::type_identity_t<T> value) {  \
    return cald::emulation::atomic(p, [&](T old) -> T { return expression; }); \
  }
CALD_EMULATION_ATOMIC(atomicAdd, old + value)
CALD_EMULATION_ATOMIC(atomicSub, old - value)
CALD_EMULATION_ATOMIC(atomicMax, old < value ? value : old)
CALD_EMULATION_ATOMIC(atomicMin, value < old ? value : old)
CALD_EMULATION_ATOMIC(atomicOr, old | value)
CALD_EMULATION_ATOMIC(atomicAnd, old& value)
CALD_EMULATION_ATOMIC(atomicExch, (static_cast<void>(old), value))
#undef CALD_EMULATION_ATOMIC
template <class T>
[[gnu::always_inline]] inline T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return cald::emulation::atomic(p, [&](T old) { return old == expected ? value : old; });
}

// ---- memory ----
template <class T>
[[gnu::always_inline]] inline T __ldg(const T* p) {
  return *p;
}
template <class T>
[[gnu::always_inline]] inline T __ldcs(const T* p) {
  return *p;
}
template <class T>
[[gnu::always_inline]] inline void __stcs(T* p, T value) {
  *p = value;
}

// ---- arithmetic; the fast variants are exact here ----
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline unsigned __umulhi(unsigned x, unsigned y) { return static_cast<unsigned>(std::uint64_t{x} * y >> 32); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }

template <class T>
requires std::is_integral_v<T>
constexpr T min(T x, std::type_identity_t<T> y) { return y < x ? y : x; }
template <class T>
requires std::is_integral_v<T>
constexpr T max(T x, std::type_identity_t<T> y) { return x < y ? y : x; }
inline float min(float x, float y) { return std::fmin(x, y); }
inline float max(float x, float y) { return std::fmax(x, y); }

#undef CALD_EMULATION_AT
