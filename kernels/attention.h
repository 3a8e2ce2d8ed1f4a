// Softmax attention by blocks of query rows: the (S, S) scores of a head never exist as a whole.
#pragma once
#include "engine/base/rng.h"
#include "kernels/launch.h"

namespace cald {

/// y = dropout(softmax(scale q k^T + mask)) v, for each head apart.
///
/// q, y: (B, Sq, D); k, v: (B, Sk, D); D = heads * head size, heads interleaved as [head, feature]; rows may be
/// strided. All four are f32 or all bf16; scores, probabilities and sums are f32. mask: (B, Sk) i32, 1 = key counts,
/// absent = all do. causal: key j counts for query i if j <= i + Sk - Sq. lse: (B, heads, Sq) f32 receives log sum exp
/// of the scaled scores, which the backward needs. A query without any key gets zeros (and lse = -inf). samples (B)
/// i32: for active dropout only, whose element is (sample, position = head * Sq + query, feature = key).
struct AttentionForward {
  static constexpr const char* name = "attention";
  TensorRef q, k, v, mask, samples;
  TensorRef y, lse;
  int heads;
  float scale;
  bool causal = false;
  Dropout dropout;
};
Cost cost_of(const AttentionForward&);
template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const AttentionForward&);

/// Recomputes the probabilities block by block from lse (Dao et al. 2022, FlashAttention, algorithm 4).
struct AttentionBackward {
  static constexpr const char* name = "attention_backward";
  TensorRef q, k, v, mask, samples, y, lse, dy;
  GradRef dq, dk, dv;
  int heads;
  float scale;
  bool causal = false;
  Dropout dropout;
};
Cost cost_of(const AttentionBackward&);
template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const AttentionBackward&);
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const AttentionBackward&);

}  // namespace cald
