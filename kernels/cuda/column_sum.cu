// The sum over rows on CUDA.
#include "kernels/cuda/column_sum.cuh"

#include <string>

#include "kernels/gemm.h"

namespace cald {
namespace {

template <class T>
void sum_as(const Exec& exec, const ColumnSum& s, float* sums) {
  const std::int64_t rows = s.x.rows(), cols = s.x.cols();
  const dim3 grid(static_cast<unsigned>((cols + cuda::kSumColumns - 1) / cuda::kSumColumns),
                  static_cast<unsigned>(cuda::blocks_of_rows(rows)));
  cuda::check_launch(
      s.name, cuda::launch(cuda::sum_rows<T>,
                           {grid, dim3(cuda::kSumColumns, cuda::kSumRows), 0, static_cast<cudaStream_t>(exec.stream)},
                           s.x.as<T>(), s.x.row_stride(), rows, cols, sums));
}

}  // namespace

template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const ColumnSum& s) {
  return static_cast<std::size_t>(cuda::blocks_of_rows(s.x.rows()) * s.x.cols()) * sizeof(float);
}

template <>
void run<Device::cuda>(Exec& exec, const ColumnSum& s) {
  const std::int64_t rows = s.x.rows(), cols = s.x.cols();
  if (!s.x.is_matrix() || s.y.to.numel() != cols || !s.y.to.is_contiguous())
    throw Error("column_sum: x " + s.x.shape.str() + " must be a matrix and y " + s.y.to.shape.str() +
                " a contiguous row of its columns");
  auto* sums = static_cast<float*>(exec.workspace);
  if (rows * cols > 0) s.x.dtype == DType::bf16 ? sum_as<__nv_bfloat16>(exec, s, sums) : sum_as<float>(exec, s, sums);
  cuda::finish_sum(exec, s.name, sums, cols, cuda::blocks_of_rows(rows), cols, s.y);
}

}  // namespace cald
