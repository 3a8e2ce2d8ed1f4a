// Matrix products.
#pragma once
#include "kernels/launch.h"

namespace cald {

/// c (set or add) = alpha op(a) op(b) + bias, f32.
///
/// a is (M, K), or (K, M) if transpose_a; b is (K, N), or (N, K) if transpose_b; c is (M, N); bias (N) is optional.
/// Every operand is seen as [rows, cols] with one row stride (TensorRef::is_matrix); with `batched` all three are rank
/// 3 and the first dimension counts independent products (bias absent).
struct Gemm {
  static constexpr const char* name = "gemm";
  TensorRef a, b, bias;
  GradRef c;
  bool transpose_a = false, transpose_b = false;
  bool batched = false;
  float alpha = 1.0f;
};
Cost cost_of(const Gemm&);
template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const Gemm&);

/// y (cols) (set or add) = the sum over rows of x; the gradient of a bias.
struct ColumnSum {
  static constexpr const char* name = "column_sum";
  TensorRef x;
  GradRef y;
};
Cost cost_of(const ColumnSum&);
template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const ColumnSum&);

}  // namespace cald
