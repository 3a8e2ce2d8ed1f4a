// LayerNorm on CUDA.
#include "kernels/layer_norm.h"

#include <string>

#include "kernels/cuda/layer_norm.cuh"

namespace cald {
namespace {

void check_rows(const char* operand, const TensorRef& t, const Shape& shape) {
  if (t.present && (!(t.shape == shape) || (t.cols() > 1 && t.strides[-1] != 1)))
    throw Error(std::string("layer_norm: ") + operand + " is " + t.shape.str() + ", wanted " + shape.str() +
                " with unit stride inside a row");
}

cuda::FeatureDropout feature_dropout(const Dropout& d, const TensorRef& samples, const Shape& x) {
  if (!d.active()) return {};
  if (!samples.present || samples.numel() != x[0])
    throw Error("layer_norm: active dropout needs samples of shape [" + std::to_string(x[0]) + "]");
  return {d.key, d.threshold(), d.scale(), samples.as<std::int32_t>(), samples.strides[0], x.rank() == 3 ? x[1] : 1};
}

float* optional(const TensorRef& t) { return t.present ? t.f32() : nullptr; }

template <class X>
void forward_as(const Exec& exec, const LayerNormForward& a) {
  cuda::launch_rows(
      exec, a.name, cuda::layer_norm<X>, a.x.rows(),
      cuda::LayerNormRows<X>{cuda::tensor_rows<const X>(a.x), cuda::tensor_rows<const float>(a.residual),
                             cuda::tensor_rows<float>(a.sum), cuda::tensor_rows<float>(a.y), optional(a.weight),
                             optional(a.bias), optional(a.mean), optional(a.rstd), a.x.rows(),
                             cuda::row_layout(a.x.cols(), a.x, a.residual, a.sum, a.y, a.weight, a.bias), a.eps,
                             feature_dropout(a.dropout, a.samples, a.x.shape)});
}

template <class X>
void backward_as(const Exec& exec, const LayerNormBackward& a) {
  cuda::launch_rows(
      exec, a.name, cuda::layer_norm_backward<X>, a.dy.rows(),
      cuda::LayerNormRowsBackward<X>{
          cuda::tensor_rows<const float>(a.sum), cuda::tensor_rows<const float>(a.dy), cuda::tensor_rows<X>(a.dx.to),
          cuda::tensor_rows<float>(a.dresidual.to), optional(a.weight), a.mean.f32(), a.rstd.f32(), a.dx.add,
          a.dresidual.add, a.dy.rows(), cuda::row_layout(a.dy.cols(), a.sum, a.dy, a.dx.to, a.dresidual.to, a.weight),
          a.dx ? feature_dropout(a.dropout, a.samples, a.dy.shape) : cuda::FeatureDropout{}});
}

}  // namespace

template <>
void run<Device::cuda>(Exec& exec, const LayerNormForward& a) {
  check_rows("x", a.x, a.x.shape);
  check_rows("residual", a.residual, a.x.shape);
  check_rows("sum", a.sum, a.x.shape);
  check_rows("y", a.y, a.x.shape);
  a.x.dtype == DType::bf16 ? forward_as<__nv_bfloat16>(exec, a) : forward_as<float>(exec, a);
}

template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const LayerNormBackward& a) {
  if (!a.dweight && !a.dbias) return 0;
  return static_cast<std::size_t>(cuda::blocks_of_rows(a.dy.rows()) * 2 * a.dy.cols()) * sizeof(float);
}

template <>
void run<Device::cuda>(Exec& exec, const LayerNormBackward& a) {
  check_rows("sum", a.sum, a.dy.shape);
  check_rows("dy", a.dy, a.dy.shape);
  check_rows("dx", a.dx.to, a.dy.shape);
  check_rows("dresidual", a.dresidual.to, a.dy.shape);
  const std::int64_t rows = a.dy.rows(), cols = a.dy.cols(), blocks = cuda::blocks_of_rows(rows);
  if (a.dweight || a.dbias) {
    auto* sums = static_cast<float*>(exec.workspace);
    const dim3 grid(static_cast<unsigned>((cols + cuda::kSumColumns - 1) / cuda::kSumColumns),
                    static_cast<unsigned>(blocks));
    if (rows * cols > 0)
      cuda::check_launch(
          a.name,
          cuda::launch(cuda::layer_norm_weight_sums,
                       {grid, dim3(cuda::kSumColumns, cuda::kSumRows), 0, static_cast<cudaStream_t>(exec.stream)},
                       cuda::tensor_rows<const float>(a.sum), cuda::tensor_rows<const float>(a.dy), a.mean.f32(),
                       a.rstd.f32(), rows, cols, sums));
    cuda::finish_sum(exec, a.name, sums, 2 * cols, blocks, cols, a.dweight);
    cuda::finish_sum(exec, a.name, sums + cols, 2 * cols, blocks, cols, a.dbias);
  }
  // Last: the gradients may take the place of dy.
  if (!a.dx && !a.dresidual) return;
  a.dx&& a.dx.to.dtype == DType::bf16 ? backward_as<__nv_bfloat16>(exec, a) : backward_as<float>(exec, a);
}

}  // namespace cald
