// Losses with their gradients. Every loss is one f32 element; sums over rows are in f64 and in the order of the rows.
//
// Cross-entropy and KL also take the rows by parts, for callers that never have all logits: the mean is then over all
// rows, and a part's loss is added to those before it.
#pragma once
#include "kernels/launch.h"

namespace cald {

/// loss = mean over rows with label >= 0 of (log sum exp(logits) - logits[label]). logits: (N, C); labels: (N) i32,
/// checked by the caller to be below C; a negative label is left out; without any counted row the loss is 0.
/// By parts: all_labels has the labels of all rows.
struct CrossEntropyForward {
  static constexpr const char* name = "cross_entropy";
  TensorRef logits, labels, loss;
  TensorRef all_labels = {};
  bool add = false;
};
Cost cost_of(const CrossEntropyForward&);
template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const CrossEntropyForward&);
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const CrossEntropyForward&);
/// dlogits may be logits, if set.
struct CrossEntropyBackward {
  static constexpr const char* name = "cross_entropy_backward";
  TensorRef logits, labels, dloss;
  GradRef dlogits;
  TensorRef all_labels = {};
};
Cost cost_of(const CrossEntropyBackward&);
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const CrossEntropyBackward&);

/// loss = scale * mean over rows of KL(softmax(teacher / T) || softmax(student / T)). Both (N, C). The teacher is a
/// constant. By parts: all_rows is how many rows there are.
struct KlForward {
  static constexpr const char* name = "kl";
  TensorRef student, teacher, loss;
  float temperature, scale;
  std::int64_t all_rows = 0;
  bool add = false;
};
Cost cost_of(const KlForward&);
template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const KlForward&);
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const KlForward&);
/// dstudent may be student, if set.
struct KlBackward {
  static constexpr const char* name = "kl_backward";
  TensorRef student, teacher, dloss;
  GradRef dstudent;
  float temperature, scale;
  std::int64_t all_rows = 0;
};
Cost cost_of(const KlBackward&);
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const KlBackward&);

/// loss = mean over the counted rows and all features of (f(student) - f(teacher))^2, f the identity or, with
/// `normalise`, LayerNorm without affine parameters. student, teacher: (..., D). mask (rows) i32 optional: rows with 0
/// are left out of sum and count. The teacher is a constant.
struct SquaredErrorForward {
  static constexpr const char* name = "squared_error";
  TensorRef student, teacher, mask, loss;
  bool normalise = false;
  float eps = 1e-5f;
};
Cost cost_of(const SquaredErrorForward&);
template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const SquaredErrorForward&);
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const SquaredErrorForward&);
struct SquaredErrorBackward {
  static constexpr const char* name = "squared_error_backward";
  TensorRef student, teacher, mask, dloss;
  GradRef dstudent;
  bool normalise = false;
  float eps = 1e-5f;
};
Cost cost_of(const SquaredErrorBackward&);
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const SquaredErrorBackward&);

}  // namespace cald
