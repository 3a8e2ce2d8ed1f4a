// Projection of the sequence axis to k slots (Linformer; Wang et al. 2020), with each sample's true length.
#pragma once
#include "kernels/launch.h"

namespace cald {

/// y[b] = e[rank[b, :]]^T x[b] / sqrt(lengths[b]).
///
/// x: (B, S, D), y: (B, k, D), both f32 or both bf16; e: (P, k), f32, with P >= the longest length; for the product
/// with an x in bf16 it is rounded to bf16 or to the sum of two bf16. rank: (B, S) i32, the token's number among the
/// sample's valid tokens, -1 for pads, which contribute nothing. lengths: (B) i32; a length of 0 gives zeros.
struct LowRankForward {
  static constexpr const char* name = "low_rank";
  TensorRef x, e, rank, lengths;
  TensorRef y;
};
Cost cost_of(const LowRankForward&);
template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const LowRankForward&);

/// x and dy have one dtype, dx has it or is f32; de is f32, and so are all sums.
/// dx[b, s] = e[rank] dy[b] / sqrt(len) (zero at pads); de[r] = sum_b x[b, s(r)] dy[b]^T / sqrt(len_b), in an order
/// that the shapes alone fix; set zeroes the rows of de that no token names.
struct LowRankBackward {
  static constexpr const char* name = "low_rank_backward";
  TensorRef x, e, rank, lengths, dy;
  GradRef dx, de;
};
Cost cost_of(const LowRankBackward&);
template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const LowRankBackward&);
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const LowRankBackward&);

/// True for a product of bf16 operands, false for one of f32. Error: the dtypes do not fit.
bool is_bf16(const LowRankForward&);
bool is_bf16(const LowRankBackward&);

}  // namespace cald
