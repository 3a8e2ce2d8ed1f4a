// LayerNorm with residual and dropout: a warp for each row; the gradients of weight and bias by column_sum.cuh's order.
//
// Device memory, with R rows of D: the forward reads x, residual, weight and bias once and the sum that it wrote twice,
// R D (size of x + 4 + 16) bytes, all but x and residual from the caches, and writes sum and y, 8 R D. The backward
// reads sum, dy and weight twice, R (24 D + 256), and writes dx and dresidual; dweight and dbias read 16 R D, of which
// half are mean and rstd by each thread. Dropout reads a sample's number for four features: R D more.
#pragma once
#include "kernels/cuda/column_sum.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/two_float.cuh"

namespace cald::cuda {

/// Dropout of a row's features; without dropout `samples` is null.
struct FeatureDropout {
  RngKey site;
  std::uint32_t threshold = 0;
  float scale = 1;
  const std::int32_t* samples = nullptr;
  std::int64_t samples_step = 0, length = 1;  ///< rows of a sample

  /// Of features 4 i .. 4 i + 3.
  __device__ DropoutBits bits(std::int64_t row, int i) const {
    return dropout_bits(site, static_cast<std::uint32_t>(samples[row / length * samples_step]),
                        static_cast<std::uint32_t>(row % length), static_cast<std::uint32_t>(i));
  }
};

/// Calls fn(feature, kept's factor) for the lane's features of a row of n, four neighbours at a time.
template <class Fn>
__device__ __forceinline__ void each_feature(const FeatureDropout& drop, std::int64_t row, int n, const Fn& fn) {
  for (int first = lane() * 4; first < n; first += 128) {
    DropoutBits bits{};
    if (drop.samples) bits = drop.bits(row, first / 4);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (first + i < n) fn(first + i, !drop.samples ? 1.0f : bits[i] < drop.threshold ? drop.scale : 0.0f);
  }
}

template <class X>
struct LayerNormRows {
  TensorRows<const X> x;
  TensorRows<const float> residual;
  TensorRows<float> sum, y;
  const float *weight, *bias;
  float *mean, *rstd;
  std::int64_t rows;
  int n;
  float eps;
  FeatureDropout dropout;
};

template <class X>
static __global__ void __launch_bounds__(32 * kWarpsOfBlock) layer_norm(LayerNormRows<X> a) {
  const std::int64_t row = warp_row();
  if (row >= a.rows) return;
  const X* x = a.x.row(row);
  const float* residual = a.residual.row(row);
  float *y = a.y.row(row), *sum = a.sum.data ? a.sum.row(row) : y;  // y holds the sums where they are not wanted
  float total = 0;
  each_feature(a.dropout, row, a.n, [&](int i, float factor) {
    float v = factor == 0.0f ? 0.0f : widen(x[i]) * factor;
    if (residual) v = residual[i] + v;
    sum[i] = v;
    total += v;
  });
  const float count = static_cast<float>(a.n), mean = warp_sum(total) / count;
  float squares = 0;
  const FeatureDropout none;
  each_feature(none, row, a.n, [&](int i, float) { squares += (sum[i] - mean) * (sum[i] - mean); });
  const float rstd = 1.0f / sqrtf(warp_sum(squares) / count + a.eps);
  each_feature(none, row, a.n, [&](int i, float) {
    float v = (sum[i] - mean) * rstd;
    if (a.weight) v *= a.weight[i];
    if (a.bias) v += a.bias[i];
    y[i] = v;
  });
  if (lane() != 0) return;
  if (a.mean) a.mean[row] = mean;
  if (a.rstd) a.rstd[row] = rstd;
}

template <class X>
struct LayerNormRowsBackward {
  TensorRows<const float> sum, dy;
  TensorRows<X> dx;
  TensorRows<float> dresidual;
  const float *weight, *mean, *rstd;
  bool add_dx, add_dresidual;
  std::int64_t rows;
  int n;
  FeatureDropout dropout;
};

/// With xhat = (sum - mean) rstd and g = dy weight: d sum = rstd (g - mean(g) - xhat mean(g xhat)).
template <class X>
static __global__ void __launch_bounds__(32 * kWarpsOfBlock) layer_norm_backward(LayerNormRowsBackward<X> a) {
  const std::int64_t row = warp_row();
  if (row >= a.rows) return;
  const float *sum = a.sum.row(row), *dy = a.dy.row(row);
  const float mean = a.mean[row], rstd = a.rstd[row];
  const auto weighted = [&](int i) { return a.weight ? dy[i] * a.weight[i] : dy[i]; };
  float sum_g = 0, sum_gx = 0;
  const FeatureDropout none;
  each_feature(none, row, a.n, [&](int i, float) {
    const float g = weighted(i);
    sum_g += g;
    sum_gx = __fmaf_rn(g, (sum[i] - mean) * rstd, sum_gx);
  });
  const float count = static_cast<float>(a.n), c1 = warp_sum(sum_g) / count, c2 = warp_sum(sum_gx) / count;
  X* dx = a.dx.row(row);
  float* dresidual = a.dresidual.row(row);
  each_feature(a.dropout, row, a.n, [&](int i, float factor) {
    const float ds = rstd * __fmaf_rn(-((sum[i] - mean) * rstd), c2, weighted(i) - c1);
    // x and residual may be one tensor: dresidual sets, then dx adds.
    if (dresidual) dresidual[i] = a.add_dresidual ? dresidual[i] + ds : ds;
    if (!dx) return;
    const float d = factor == 0.0f ? 0.0f : ds * factor;
    dx[i] = narrow_to<X>(a.add_dx ? widen(dx[i]) + d : d);
  });
}

/// sums (blocks, 2, cols): of dy xhat and of dy over kRowsOfBlock rows each. Grid and block as in sum_rows.
static __global__ void __launch_bounds__(kSumColumns* kSumRows)
    layer_norm_weight_sums(TensorRows<const float> sum, TensorRows<const float> dy, const float* mean,
                           const float* rstd, std::int64_t rows, std::int64_t cols, float* sums) {
  CALD_SHARED(float, part, [2 * kSumRows * kSumColumns]);
  const std::int64_t column = std::int64_t{blockIdx.x} * kSumColumns + threadIdx.x;
  const std::int64_t first = std::int64_t{blockIdx.y} * kRowsOfBlock;
  const std::int64_t end = first + kRowsOfBlock < rows ? first + kRowsOfBlock : rows;
  float of_weight = 0, of_bias = 0;
  if (column < cols)
    for (std::int64_t i = first + threadIdx.y; i < end; i += kSumRows) {
      const float g = dy.row(i)[column];
      of_weight = __fmaf_rn(g, (sum.row(i)[column] - mean[i]) * rstd[i], of_weight);
      of_bias += g;
    }
  const int mine = threadIdx.y * kSumColumns + threadIdx.x;
  part[mine] = of_weight;
  part[kSumRows * kSumColumns + mine] = of_bias;
  __syncthreads();
  if (threadIdx.y != 0 || column >= cols) return;
  for (int i = 1; i < kSumRows; ++i) {
    of_weight += part[i * kSumColumns + threadIdx.x];
    of_bias += part[(kSumRows + i) * kSumColumns + threadIdx.x];
  }
  sums[2 * blockIdx.y * cols + column] = of_weight;
  sums[(2 * blockIdx.y + 1) * cols + column] = of_bias;
}

}  // namespace cald::cuda
