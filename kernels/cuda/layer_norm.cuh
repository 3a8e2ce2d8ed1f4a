// LayerNorm with residual and dropout: a warp for each row; the gradients of weight and bias by column_sum.cuh's order.
//
// Device memory, with R rows of D: the forward reads x, residual, weight and bias once and the sum that it wrote twice,
// R D (size of x + 4 + 16) bytes, all but x and residual from the caches, and writes sum and y, 8 R D. The backward
// reads sum, dy and weight twice, R (24 D + 256), and writes dx and dresidual; dweight and dbias read 16 R D, of which
// half are mean and rstd by each thread. Dropout reads a sample's number for four features (for each, where rows do not
// begin aligned): R D more.
#pragma once
#include "kernels/cuda/column_sum.cuh"
#include "kernels/cuda/rows.cuh"

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

/// The factors of a row's features: 0 for those that are dropped. A row to read (rows.cuh).
struct KeptFactors {
  const FeatureDropout& dropout;
  std::int64_t row;

  template <int N>
  __device__ __forceinline__ Elements<float, N> load(int i) const {
    if (!dropout.samples) return elements<N>([](int) { return 1.0f; });
    const DropoutBits bits = dropout.bits(row, i / 4);
    return elements<N>([&](int k) { return bits[N == 1 ? i % 4 : k] < dropout.threshold ? dropout.scale : 0.0f; });
  }
};
static_assert(RowLayout::kVector == 4, "a draw decides about four features");

template <class X>
struct LayerNormRows {
  TensorRows<const X> x;
  TensorRows<const float> residual;
  TensorRows<float> sum, y;
  const float *weight, *bias;
  float *mean, *rstd;
  std::int64_t rows;
  RowLayout layout;
  float eps;
  FeatureDropout dropout;
};

template <class X>
static __global__ void __launch_bounds__(32 * kWarpsOfBlock) layer_norm(LayerNormRows<X> a) {
  const std::int64_t row = warp_row();
  if (row >= a.rows) return;
  float *y = a.y.row(row), *sum = a.sum.data ? a.sum.row(row) : y;  // y holds the sums where they are not wanted
  float total = 0;
  write_row(
      a.layout, sum, false,
      [&](int, float x, float residual, float factor) {
        const float v = residual + (factor == 0.0f ? 0.0f : x * factor);
        total += v;
        return v;
      },
      Row{a.x.row(row)}, Row{a.residual.row(row)}, KeptFactors{a.dropout, row});
  const float count = static_cast<float>(a.layout.n), mean = warp_sum(total) / count;
  const Row sums{static_cast<const float*>(sum)};
  const float squares = sum_of_row(
      a.layout, [&](int, float s) { return (s - mean) * (s - mean); }, sums);
  const float rstd = 1.0f / sqrtf(squares / count + a.eps);
  write_row(
      a.layout, y, false, [&](int, float s, float weight, float bias) { return (s - mean) * rstd * weight + bias; },
      sums, Row{a.weight, 1.0f}, Row{a.bias, 0.0f});
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
  RowLayout layout;
  FeatureDropout dropout;
};

/// With xhat = (sum - mean) rstd and g = dy weight: d sum = rstd (g - mean(g) - xhat mean(g xhat)).
template <class X>
static __global__ void __launch_bounds__(32 * kWarpsOfBlock) layer_norm_backward(LayerNormRowsBackward<X> a) {
  const std::int64_t row = warp_row();
  if (row >= a.rows) return;
  const Row sum{a.sum.row(row)}, dy{a.dy.row(row)}, weight{a.weight, 1.0f};
  const float mean = a.mean[row], rstd = a.rstd[row];
  float sum_g = 0, sum_gx = 0;
  each_of_row(
      a.layout,
      [&](int, float s, float d, float w) {
        sum_g += d * w;
        sum_gx = __fmaf_rn(d * w, (s - mean) * rstd, sum_gx);
      },
      sum, dy, weight);
  const float count = static_cast<float>(a.layout.n), c1 = warp_sum(sum_g) / count, c2 = warp_sum(sum_gx) / count;
  X* dx = a.dx.row(row);
  float* dresidual = a.dresidual.row(row);
  const KeptFactors factors{a.dropout, row};
  each_part(a.layout, [&](int i, auto width) {
    constexpr int N = decltype(width)::value;
    const auto ds = apply<N>(
        i, [&](int, float s, float d, float w) { return rstd * __fmaf_rn(-((s - mean) * rstd), c2, d * w - c1); },
        sum.template load<N>(i), dy.template load<N>(i), weight.template load<N>(i));
    // x and residual may be one tensor: dresidual sets, then dx adds.
    if (dresidual) write<N>(dresidual + i, ds, a.add_dresidual);
    if (dx)
      write<N>(dx + i,
               apply<N>(
                   i, [](int, float d, float factor) { return factor == 0.0f ? 0.0f : d * factor; }, ds,
                   factors.template load<N>(i)),
               a.add_dx);
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
