// Matrix products.
#pragma once
#include "kernels/launch.h"

namespace cald {

/// c (set or add) = alpha op(a) op(b) + bias, summed in f32.
///
/// a is (M, K), or (K, M) if transpose_a; b is (K, N), or (N, K) if transpose_b; c is (M, N); bias (N) is optional.
/// Every operand is seen as [rows, cols] with one row stride (TensorRef::is_matrix); with `batched` all three are rank
/// 3 and the first dimension counts independent products (bias absent).
/// a and b are both f32, with an f32 c, or both bf16, with c in f32 or bf16; or a is bf16 and b, not batched, is f32
/// and rounded to bf16 on the way. bias is f32. b may be a packed weight: one for x W^T with transpose_b, one for dy W
/// without.
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
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const Gemm&);

/// One operand of a product: extents as the product has them, and elements between two of its rows and columns.
struct GemmOperand {
  std::int64_t rows, cols, row_step, col_step;
  std::int64_t batch_step = 0;
};
struct GemmOperands {
  std::int64_t m, n, k, batches;
  GemmOperand a, b, c;
};
/// The operands as every backend sees them. Error: shapes, strides or dtypes do not fit.
GemmOperands gemm_operands(const Gemm&);

/// Bytes of a weight (out, in), packed for products in bf16; a Copy packs it. 0 where the backend's products are
/// content with rows.
template <Device D>
std::size_t packed_bytes(const Shape& weight, Packing packing);
template <>
std::size_t packed_bytes<Device::cpu>(const Shape&, Packing);
template <>
std::size_t packed_bytes<Device::cuda>(const Shape&, Packing);
inline std::size_t packed_bytes(Device d, const Shape& weight, Packing packing) {
  return d == Device::cuda ? packed_bytes<Device::cuda>(weight, packing) : packed_bytes<Device::cpu>(weight, packing);
}

/// True if this processor multiplies bf16 by its own instructions (AVX-512 BF16); without them bf16 would be slower
/// than f32, and a product of bf16 matrices is an Error.
bool cpu_has_bf16();

/// y (cols), f32 (set or add) = the sum over rows of x, f32 or bf16; the gradient of a bias.
struct ColumnSum {
  static constexpr const char* name = "column_sum";
  TensorRef x;
  GradRef y;
};
Cost cost_of(const ColumnSum&);
template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const ColumnSum&);
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const ColumnSum&);

}  // namespace cald
