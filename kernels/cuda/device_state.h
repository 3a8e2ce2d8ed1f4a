// What an opened CUDA device keeps from launch to launch: what Exec::state points to.
#pragma once
#include <cublasLt.h>

#include <array>
#include <cstdint>
#include <map>

#include "kernels/cuda/graphs.h"
#include "kernels/cuda/staging.h"

namespace cald::cuda {

/// cuBLASLt's handle with the algorithms that it chose.
struct Products {
  /// Extents, strides, types and flags of a product.
  using Key = std::array<std::int64_t, 16>;

  cublasLtHandle_t handle = nullptr;
  std::map<Key, cublasLtMatmulAlgo_t> algorithms;
};

struct DeviceState {
  Products products;
  Staging staging;
  Graphs graphs;
};

}  // namespace cald::cuda
