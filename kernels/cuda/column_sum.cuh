// Sums over rows, in two steps whose order depends on the number of rows alone: blocks of rows, then the blocks.
//
// Device memory: the rows read once, and 4 ceil(rows / kRowsOfBlock) cols bytes of sums written and read.
#pragma once
#include "kernels/cuda/check_launch.h"
#include "kernels/cuda/convert.cuh"
#include "kernels/launch.h"

namespace cald::cuda {

constexpr int kRowsOfBlock = 128, kSumColumns = 32, kSumRows = 8;

inline std::int64_t blocks_of_rows(std::int64_t rows) { return (rows + kRowsOfBlock - 1) / kRowsOfBlock; }

/// sums (blocks, cols) = of kRowsOfBlock rows each. Grid (columns / 32, blocks), block (32, 8): a thread takes every
/// eighth row.
template <class T>
static __global__ void __launch_bounds__(kSumColumns* kSumRows)
    sum_rows(const T* x, std::int64_t step, std::int64_t rows, std::int64_t cols, float* sums) {
  CALD_SHARED(float, part, [kSumRows * kSumColumns]);
  const std::int64_t column = std::int64_t{blockIdx.x} * kSumColumns + threadIdx.x;
  const std::int64_t first = std::int64_t{blockIdx.y} * kRowsOfBlock;
  const std::int64_t end = first + kRowsOfBlock < rows ? first + kRowsOfBlock : rows;
  float sum = 0;
  if (column < cols)
    for (std::int64_t i = first + threadIdx.y; i < end; i += kSumRows) sum += widen(x[i * step + column]);
  part[threadIdx.y * kSumColumns + threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= cols) return;
  for (int i = 1; i < kSumRows; ++i) sum += part[i * kSumColumns + threadIdx.x];
  sums[blockIdx.y * cols + column] = sum;
}

/// y (set or add) = the sum of `blocks` rows of `cols` that lie `step` apart, in their order. y is those columns, or a
/// matrix of as many elements, with rows of `width` that lie y_step apart.
static __global__ void __launch_bounds__(128)
    sum_blocks(const float* sums, std::int64_t step, std::int64_t blocks, std::int64_t cols, float* y,
               std::int64_t width, std::int64_t y_step, bool add) {
  const std::int64_t column = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (column >= cols) return;
  float sum = 0;
#pragma unroll 8
  for (std::int64_t b = 0; b < blocks; ++b) sum += sums[b * step + column];
  float& to = y[column / width * y_step + column % width];
  to = add ? to + sum : sum;
}

inline void finish_sum(const Exec& exec, const char* name, const float* sums, std::int64_t step, std::int64_t blocks,
                       std::int64_t cols, const GradRef& y) {
  if (!y || cols == 0) return;
  constexpr unsigned kThreads = 128;
  const dim3 grid((static_cast<unsigned>(cols) + kThreads - 1) / kThreads);
  check_launch(name, launch(sum_blocks, {grid, kThreads, 0, static_cast<cudaStream_t>(exec.stream)}, sums, step, blocks,
                            cols, y.to.f32(), y.to.cols(), y.to.row_stride(), y.add));
}

}  // namespace cald::cuda
