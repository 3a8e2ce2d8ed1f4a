// The losses on CUDA.
#include "kernels/losses.h"

#include "kernels/cuda/losses.cuh"

namespace cald {
namespace {

cuda::CountedRows counted_by(const TensorRef& t, bool labels) {
  if (!t.present) return {};
  return {t.as<std::int32_t>(), cuda::leading(t, t.shape.rank()), labels};
}

/// `gradient` is absent in the forward.
template <class Args>
cuda::LossRows rows_of(const Args& a, const TensorRef& gradient = {}) {
  cuda::LossRows r;
  if constexpr (requires { a.logits; }) {
    r.student = cuda::tensor_rows<const float>(a.logits);
    r.counted = counted_by(a.labels, true);
    r.rows = a.logits.rows(), r.layout = cuda::row_layout(a.logits.cols(), a.logits, gradient);
  } else {
    r.student = cuda::tensor_rows<const float>(a.student);
    r.teacher = cuda::tensor_rows<const float>(a.teacher);
    r.rows = a.student.rows(), r.layout = cuda::row_layout(a.student.cols(), a.student, a.teacher, gradient);
  }
  if constexpr (requires { a.temperature; }) r.inverse_temperature = 1.0f / a.temperature;
  if constexpr (requires { a.mask; }) r.counted = counted_by(a.mask, false), r.eps = a.eps;
  return r;
}

/// Cross-entropy and KL may have a part of the rows that the mean is over.
template <class Args>
cuda::Mean mean_of(const Args& a, const cuda::LossRows& part, int elements_each, float scale) {
  cuda::Mean mean{part.counted, part.rows, elements_each, scale};
  if constexpr (requires { a.all_labels; }) {
    if (a.all_labels.present) mean.counted = counted_by(a.all_labels, true), mean.rows = a.all_labels.numel();
  }
  if constexpr (requires { a.all_rows; }) {
    if (a.all_rows) mean.rows = a.all_rows;
  }
  return mean;
}

std::size_t row_scratch(const TensorRef& t) { return static_cast<std::size_t>(t.rows()) * sizeof(cuda::TwoFloat); }

template <class Row, class Args>
void forward(const Exec& exec, const Args& a, int elements_each, float scale) {
  const cuda::LossRows rows = rows_of(a);
  auto* of_row = static_cast<cuda::TwoFloat*>(exec.workspace);
  cuda::launch_rows(exec, a.name, cuda::loss_of_rows<Row>, rows.rows, rows, of_row);
  bool add = false;
  if constexpr (requires { a.add; }) add = a.add;
  cuda::check_launch(a.name,
                     cuda::launch(cuda::mean_of_rows, {1, cuda::kSumThreads, 0, static_cast<cudaStream_t>(exec.stream)},
                                  of_row, rows.rows, mean_of(a, rows, elements_each, scale), add, a.loss.f32()));
}

template <class Row, class Args>
void backward(const Exec& exec, const Args& a, const GradRef& to, int elements_each, float scale) {
  const cuda::LossRows rows = rows_of(a, to.to);
  auto* factor = static_cast<float*>(exec.workspace);
  cuda::check_launch(
      a.name, cuda::launch(cuda::gradient_factor, {1, cuda::kSumThreads, 0, static_cast<cudaStream_t>(exec.stream)},
                           a.dloss.f32(), mean_of(a, rows, elements_each, scale), factor));
  cuda::launch_rows(exec, a.name, cuda::gradient_of_rows<Row>, rows.rows, rows, factor,
                    cuda::GradientRows{cuda::tensor_rows<float>(to.to), to.add});
}

}  // namespace

template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const CrossEntropyForward& a) {
  return row_scratch(a.logits);
}
template <>
void run<Device::cuda>(Exec& exec, const CrossEntropyForward& a) {
  forward<cuda::CrossEntropyRow>(exec, a, 1, 1.0f);
}
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const CrossEntropyBackward&) {
  return sizeof(float);
}
template <>
void run<Device::cuda>(Exec& exec, const CrossEntropyBackward& a) {
  backward<cuda::CrossEntropyRow>(exec, a, a.dlogits, 1, 1.0f);
}

template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const KlForward& a) {
  return row_scratch(a.student);
}
template <>
void run<Device::cuda>(Exec& exec, const KlForward& a) {
  forward<cuda::KlRow>(exec, a, 1, a.scale);
}
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const KlBackward&) {
  return sizeof(float);
}
template <>
void run<Device::cuda>(Exec& exec, const KlBackward& a) {
  backward<cuda::KlRow>(exec, a, a.dstudent, 1, a.scale / a.temperature);
}

template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const SquaredErrorForward& a) {
  return row_scratch(a.student);
}
template <>
void run<Device::cuda>(Exec& exec, const SquaredErrorForward& a) {
  const int n = static_cast<int>(a.student.cols());
  a.normalise ? forward<cuda::SquaredErrorRow<true>>(exec, a, n, 1.0f)
              : forward<cuda::SquaredErrorRow<false>>(exec, a, n, 1.0f);
}
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const SquaredErrorBackward&) {
  return sizeof(float);
}
template <>
void run<Device::cuda>(Exec& exec, const SquaredErrorBackward& a) {
  const int n = static_cast<int>(a.student.cols());
  a.normalise ? backward<cuda::SquaredErrorRow<true>>(exec, a, a.dstudent, n, 2.0f)
              : backward<cuda::SquaredErrorRow<false>>(exec, a, a.dstudent, n, 2.0f);
}

}  // namespace cald
