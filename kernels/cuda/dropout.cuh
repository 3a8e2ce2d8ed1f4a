// Dropout of features.
//
// Device memory, with n elements: x read and y written once, 4 n bytes each; a sample's number for four features, n.
#pragma once
#include "engine/base/rng.h"
#include "kernels/cuda/vectors.cuh"

namespace cald::cuda {

/// Rows (B, S, F): a thread decides about four features at once, whose bits come together.
struct DropoutRows {
  const float* x;
  float* y;
  std::int64_t x_steps[2], y_steps[2];  ///< of samples and positions
  const std::int32_t* samples;
  std::int64_t samples_step;
  int positions, features;
  bool vectors;  ///< every row begins at an aligned address
  bool add;
  RngKey site;
  std::uint32_t threshold;
  float scale;
};

/// N elements, of which bits[first] decides the first.
template <int N>
__device__ __forceinline__ void drop(const DropoutRows& a, const float* x, float* y, const DropoutBits& bits,
                                     int first) {
  const auto from = load_elements<N>(x);
  Elements<float, N> old{};
  if (a.add) old = load_elements<N>(y);
  store_elements<N>(y, elements<N>([&](int k) {
                      const float kept = bits[first + k] < a.threshold ? from.x[k] * a.scale : 0.0f;
                      return a.add ? old.x[k] + kept : kept;
                    }));
}

static __global__ void __launch_bounds__(128) dropout_rows(DropoutRows a) {
  const int first = (blockIdx.x * static_cast<int>(blockDim.x) + threadIdx.x) * 4, b = blockIdx.z;
  if (first >= a.features) return;
  const auto sample = static_cast<std::uint32_t>(a.samples[b * a.samples_step]);
  for (int s = blockIdx.y; s < a.positions; s += gridDim.y) {
    const DropoutBits bits =
        dropout_bits(a.site, sample, static_cast<std::uint32_t>(s), static_cast<std::uint32_t>(first / 4));
    const float* x = a.x + b * a.x_steps[0] + s * a.x_steps[1] + first;
    float* y = a.y + b * a.y_steps[0] + s * a.y_steps[1] + first;
    if (a.vectors && first + 4 <= a.features) {
      drop<4>(a, x, y, bits, 0);
      continue;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (first + i < a.features) drop<1>(a, x + i, y + i, bits, i);
  }
}

}  // namespace cald::cuda
