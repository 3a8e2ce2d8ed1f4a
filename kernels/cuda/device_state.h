// cuBLASLt's handle with the algorithms that it chose, one an opened device: what Exec::products points to.
#pragma once
#include <cublasLt.h>

#include <array>
#include <cstdint>
#include <map>

namespace cald::cuda {

struct Products {
  /// Extents, strides, types and flags of a product.
  using Key = std::array<std::int64_t, 16>;

  cublasLtHandle_t handle = nullptr;
  std::map<Key, cublasLtMatmulAlgo_t> algorithms;
};

}  // namespace cald::cuda
