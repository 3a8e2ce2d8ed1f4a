// The one header that kernels include: the CUDA device language, by nvcc or by the emulator under g++, and the launch.
//
// Below the language itself it names, alike in both builds:
//   CALD_SHARED(T, name, [m][n])     a static shared array
//   CALD_DYNAMIC_SHARED(T, name)     T* name: the launch's dynamic shared memory
//   load_vector / store_vector       one access of 4, 8 or 16 aligned bytes
//   cp_async16, cp_async_commit, cp_async_wait, ldmatrix, mma_*, to_tf32: the PTX instructions (sm_80 and later)
//   launch(kernel, {grid, block, dynamic shared bytes, stream}, arguments...)
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#ifdef __CUDACC__

#define CALD_SHARED(T, name, extents) __shared__ __align__(16) T name extents
// One untyped symbol, since an extern array of a template's type would clash between instances.
extern __shared__ __align__(128) unsigned char cald_dynamic_shared[];
#define CALD_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(cald_dynamic_shared)

#else

#include "kernels/cuda/emulation/device_language.h"
#include "kernels/cuda/emulation/kernel.h"

#define CALD_SHARED(T, name, extents)             \
  using name##_type = T extents;                  \
  static constinit char name##_tag = 0;           \
  name##_type& name = *static_cast<name##_type*>( \
      cald::emulation::static_shared(&name##_tag, sizeof(name##_type), alignof(name##_type)))
#define CALD_DYNAMIC_SHARED(T, name) T* name = static_cast<T*>(cald::emulation::shared_memory::dynamic())

#endif

namespace cald::cuda {

using bf16 = __nv_bfloat16;

struct Launch {
  dim3 grid;
  dim3 block;
  std::size_t dynamic_shared = 0;  ///< bytes
  cudaStream_t stream = nullptr;
};

/// Enqueues `kernel` on the stream; raises its limit of dynamic shared memory where more than 48 KiB are asked for.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), const Launch& shape, Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "kernel arguments are copied bytewise");
#ifndef __CUDACC__
  emulation::register_kernel(kernel);
#endif
  if (shape.dynamic_shared > (std::size_t{48} << 10)) {
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shape.dynamic_shared));
    if (error != cudaSuccess) return error;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.dynamic_shared;
  config.stream = shape.stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(std::forward<Arguments>(arguments))...);
}

#ifdef __CUDACC__

/// One load or store of sizeof(Vector) bytes at an address aligned to them. A plain dereference of a cast pointer does
/// the same on a GPU, but then the emulator sees g++'s scalar accesses, each counted as a request of its own.
template <class Vector>
__device__ __forceinline__ Vector load_vector(const void* from) {
  static_assert(sizeof(Vector) == 4 || sizeof(Vector) == 8 || sizeof(Vector) == 16);
  return *static_cast<const Vector*>(from);
}
template <class Vector>
__device__ __forceinline__ void store_vector(void* to, const Vector& value) {
  static_assert(sizeof(Vector) == 4 || sizeof(Vector) == 8 || sizeof(Vector) == 16);
  *static_cast<Vector*>(to) = value;
}

__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

/// Starts copying 16 bytes from global to shared memory, both aligned to 16; zeros instead where not valid. The copy
/// belongs to the group that the next cp_async_commit closes.
__device__ __forceinline__ void cp_async16(void* shared, const void* global, bool valid = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
/// Waits until at most kInFlight of the running thread's newest groups have not landed.
template <int kInFlight>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kInFlight) : "memory");
}

/// Loads kCount (1, 2, 4) 8x8 tiles of 16-bit elements from shared memory. Lane 8m + i passes the address of row i of
/// tile m; r[m] of lane l then holds elements (l / 4, 2 (l % 4)) and the one right of it, of the transposed tile where
/// asked for.
template <int kCount, bool kTransposed = false>
__device__ __forceinline__ void ldmatrix(std::uint32_t (&r)[kCount], const void* row) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4);
  const std::uint32_t from = shared_address(row);
  if constexpr (kCount == 1 && !kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];\n" : "=r"(r[0]) : "r"(from) : "memory");
  if constexpr (kCount == 1 && kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];\n" : "=r"(r[0]) : "r"(from) : "memory");
  if constexpr (kCount == 2 && !kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];\n"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(from)
                 : "memory");
  if constexpr (kCount == 2 && kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];\n"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(from)
                 : "memory");
  if constexpr (kCount == 4 && !kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
  if constexpr (kCount == 4 && kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

/// d (16x8, f32) += a (16x16, row-major) b (16x8, column-major), two bf16 a register. Fragments as in the PTX ISA,
/// "Matrix Fragments for mma.m16n8k16": with g = lane / 4 and t = lane % 4, d[0..1] are row g, columns 2t and 2t + 1,
/// d[2..3] row g + 8; a[0..3] are rows g, g + 8, g, g + 8 and columns from 2t, 2t, 2t + 8, 2t + 8; b[0..1] are column
/// g and rows from 2t, 2t + 8.
__device__ __forceinline__ void mma_bf16_16x8x16(float (&d)[4], const std::uint32_t (&a)[4],
                                                 const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// The same for a (16x8) and b (8x8) in tf32, one a register (to_tf32): a[0..3] are rows g, g + 8, g, g + 8 and columns
/// t, t, t + 4, t + 4; b[0..1] are column g and rows t, t + 4.
__device__ __forceinline__ void mma_tf32_16x8x8(float (&d)[4], const std::uint32_t (&a)[4],
                                                const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// The bits of x rounded to tf32, halves away from zero.
__device__ __forceinline__ std::uint32_t to_tf32(float x) {
  std::uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(bits) : "f"(x));
  return bits;
}

#endif

}  // namespace cald::cuda
