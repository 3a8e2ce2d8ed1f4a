// f32 in registers, f32 or bf16 in memory.
#pragma once
#include "kernels/cuda/device.cuh"

namespace cald::cuda {

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
/// Rounded to nearest even where T is bf16.
template <class T>
__device__ __forceinline__ T narrow_to(float x) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>)
    return __float2bfloat16_rn(x);
  else
    return x;
}

}  // namespace cald::cuda
