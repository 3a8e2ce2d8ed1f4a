// Neighbouring elements of one thread, moved by one access of up to 16 bytes: what kernels bound by memory share.
#pragma once
#include <algorithm>

#include "engine/base/tensor_ref.h"
#include "kernels/cuda/device.cuh"

namespace cald::cuda {

template <class T, int N>
struct alignas(sizeof(T) * N) Elements {
  T x[N];
};

/// Elements that one access moves of the largest of these types.
template <class... T>
constexpr int kVectorOf = 16 / static_cast<int>(std::max({sizeof(T)...}));

/// Whether the tensor's first n elements may be moved by one access.
inline bool begins_with_vector(const TensorRef& t, int n) {
  return reinterpret_cast<std::uintptr_t>(t.data) % (static_cast<std::size_t>(n) * size_of(t.dtype)) == 0;
}

/// Unless N is 1, `from` and `to` are aligned to N elements.
template <int N, class T>
__device__ __forceinline__ Elements<T, N> load_elements(const T* from) {
  if constexpr (N == 1)
    return {{*from}};
  else
    return load_vector<Elements<T, N>>(from);
}
template <int N, class T>
__device__ __forceinline__ void store_elements(T* to, const Elements<T, N>& values) {
  if constexpr (N == 1)
    *to = values.x[0];
  else
    store_vector(to, values);
}

/// fn(0), fn(1), ...
template <int N, class Fn>
__device__ __forceinline__ auto elements(const Fn& fn) {
  Elements<decltype(fn(0)), N> all;
#pragma unroll
  for (int k = 0; k < N; ++k) all.x[k] = fn(k);
  return all;
}

}  // namespace cald::cuda
