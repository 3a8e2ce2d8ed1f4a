// From a launch's TensorRefs to the operands of the attention kernels, and the choice of a kernel by head size.
#pragma once
#include <string>

#include "engine/base/error.h"
#include "kernels/attention.h"
#include "kernels/cuda/attention_operands.cuh"
#include "kernels/cuda/check_launch.h"

namespace cald::cuda {

template <class T>
HeadRows<T> head_rows(const TensorRef& t, int heads) {
  if (!t.present) return {};
  constexpr std::int64_t kVector = 16 / sizeof(T);
  const bool vectors = reinterpret_cast<std::uintptr_t>(t.data) % 16 == 0 && t.strides[0] % kVector == 0 &&
                       t.strides[1] % kVector == 0 && t.dim(2) / heads % kVector == 0;
  return {t.as<T>(), t.strides[0], t.strides[1], vectors, false};
}
template <class T>
HeadRows<T> head_rows(const GradRef& g, int heads) {
  HeadRows<T> rows = head_rows<T>(g.to, heads);
  rows.add = g.add;
  return rows;
}

template <class Args>
AttentionSizes attention_sizes(const Args& a) {
  return {static_cast<int>(a.q.dim(1)), static_cast<int>(a.k.dim(1)), static_cast<int>(a.q.dim(2) / a.heads), a.scale,
          a.causal};
}
inline KeyMask key_mask(const TensorRef& mask) {
  if (!mask.present) return {};
  return {mask.as<std::int32_t>(), mask.strides[0], mask.strides[1]};
}
template <class Args>
ProbabilityDropout probability_dropout(const Args& a) {
  if (!a.dropout.active()) return {};
  return {a.dropout.key, a.dropout.threshold(), a.dropout.scale(), a.samples.template as<std::int32_t>(),
          a.samples.strides[0]};
}

/// Queries of all heads and samples; the backward has two numbers of each.
inline std::int64_t query_count(const AttentionBackward& a) { return a.q.dim(0) * a.heads * a.q.dim(1); }

template <class T>
AttentionForwardOperands<T> forward_operands(const AttentionForward& a) {
  return {head_rows<const T>(a.q, a.heads),
          head_rows<const T>(a.k, a.heads),
          head_rows<const T>(a.v, a.heads),
          head_rows<T>(a.y, a.heads),
          a.lse.f32(),
          attention_sizes(a),
          key_mask(a.mask),
          probability_dropout(a)};
}
template <class T>
AttentionBackwardOperands<T> backward_operands(const Exec& exec, const AttentionBackward& a) {
  auto* const inverse = static_cast<float*>(exec.workspace);
  return {head_rows<const T>(a.q, a.heads),
          head_rows<const T>(a.k, a.heads),
          head_rows<const T>(a.v, a.heads),
          head_rows<const T>(a.y, a.heads),
          head_rows<const T>(a.dy, a.heads),
          head_rows<T>(a.dq, a.heads),
          head_rows<T>(a.dk, a.heads),
          head_rows<T>(a.dv, a.heads),
          a.lse.f32(),
          inverse,
          inverse + query_count(a),
          attention_sizes(a),
          key_mask(a.mask),
          probability_dropout(a)};
}

/// Tensor-core kernels of attention_bf16.cu.
void attention_forward_on_tensor_cores(const Exec& exec, const AttentionForward& a);
void attention_backward_on_tensor_cores(const Exec& exec, const AttentionBackward& a);

/// A grid over tiles of `rows`, heads and samples.
template <class Args>
dim3 attention_grid(const Args& a, std::int64_t rows, int tile) {
  return dim3(static_cast<unsigned>((rows + tile - 1) / tile), static_cast<unsigned>(a.heads),
              static_cast<unsigned>(a.q.dim(0)));
}

/// Calls fn(constant) with the least head size that has a kernel and is not below this one.
template <class Fn>
void with_head_size(const char* name, int head_size, const Fn& fn) {
  if (head_size <= 32) return fn(std::integral_constant<int, 32>());
  if (head_size <= 64) return fn(std::integral_constant<int, 64>());
  if (head_size <= 80) return fn(std::integral_constant<int, 80>());
  if (head_size <= 96) return fn(std::integral_constant<int, 96>());
  if (head_size <= 128) return fn(std::integral_constant<int, 128>());
  if (head_size <= 256) return fn(std::integral_constant<int, 256>());
  throw Error(std::string(name) + ": on CUDA a head has at most 256 features, got " + std::to_string(head_size));
}

}  // namespace cald::cuda
