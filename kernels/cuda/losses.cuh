// Losses with their gradients: a warp for each row. A row's loss goes to scratch memory, whence one block sums them in
// two floats each and in a fixed order.
//
// Device memory, with n elements in R rows: bytes that threads ask for, of which each element comes once from memory
// and again from the caches. Loss: 8 n (cross-entropy), 24 n (KL), 8 n (squared error; 24 n normalised); gradient: 12
// n, 24 n, 8 n (40 n); it is written once. A label, a mask and the factor are read by each lane, 128 R bytes for each
// time; a row's loss is 8 bytes.
#pragma once
#include "kernels/cuda/rows.cuh"

namespace cald::cuda {

/// Which rows count: those with a label of 0 or more, or with a mask of 1; without either all do.
struct CountedRows {
  const std::int32_t* data = nullptr;
  Leading index;
  bool labels = false;

  __device__ bool counts(std::int64_t row) const {
    if (!data) return true;
    const std::int32_t value = data[index.at(row)];
    return labels ? value >= 0 : value != 0;
  }
  __device__ int label(std::int64_t row) const { return data[index.at(row)]; }
};

/// softmax(scale x)_i = exp(scale (x_i - top)) / sum.
struct Softmax {
  Row<float> x;
  float scale, top = -__builtin_huge_valf(), sum;

  __device__ Softmax(const RowLayout& row, const float* logits, float factor) : x{logits}, scale(factor) {
    each_of_row(
        row, [&](int, float v) { top = fmaxf(top, v); }, x);
    top = warp_max(top);
    sum = sum_of_row(
        row, [&](int, float v) { return expf(scale * (v - top)); }, x);
  }
  __device__ float probability(float v) const { return expf(scale * (v - top)) / sum; }
  /// Of the probability, but for the sum. Not fused with what is taken from it: equal rows differ by exactly nothing.
  __device__ float log_term(float v) const { return __fmul_rn(v - top, scale); }
};

/// A gradient by rows: set or add.
struct GradientRows {
  TensorRows<float> rows;
  bool add = false;
};

struct LossRows {
  TensorRows<const float> student, teacher;  ///< cross-entropy: the logits alone
  CountedRows counted;
  std::int64_t rows;
  RowLayout layout;  ///< of the gradient, too
  float inverse_temperature = 1;
  float eps = 0;
};

/// LayerNorm without affine parameters: f(x) = (x - mean) rstd; or the identity.
template <bool kNormalise>
struct Normaliser {
  Row<float> x;
  float mean = 0, rstd = 1;

  __device__ Normaliser(const RowLayout& row, const float* data, float eps) : x{data} {
    if constexpr (kNormalise) {
      const float count = static_cast<float>(row.n);
      mean = sum_of_row(
                 row, [](int, float v) { return v; }, x) /
             count;
      const float squares = sum_of_row(
          row, [&](int, float v) { return (v - mean) * (v - mean); }, x);
      rstd = 1.0f / sqrtf(squares / count + eps);
    }
  }
  __device__ float operator()(float v) const {
    // Not fused with what is taken from it: equal rows differ by exactly nothing.
    if constexpr (kNormalise) return __fmul_rn(v - mean, rstd);
    return v;
  }
};

/// Each kind of loss: the loss of a row (every lane gets it), and its gradient times `factor`.
struct CrossEntropyRow {
  static __device__ float loss(const LossRows& a, std::int64_t row) {
    const float* x = a.student.row(row);
    const Softmax s(a.layout, x, 1.0f);
    return logf(s.sum) + (s.top - x[a.counted.label(row)]);
  }
  static __device__ void gradient(const LossRows& a, std::int64_t row, float factor, const GradientRows& g) {
    const Softmax s(a.layout, a.student.row(row), 1.0f);
    const int label = a.counted.label(row);
    write_row(
        a.layout, g.rows.row(row), g.add,
        [&](int i, float x) {
          const float p = s.probability(x);
          return (i == label ? p - 1.0f : p) * factor;
        },
        s.x);
  }
};

struct KlRow {
  static __device__ float loss(const LossRows& a, std::int64_t row) {
    const Softmax q(a.layout, a.student.row(row), a.inverse_temperature);
    const Softmax p(a.layout, a.teacher.row(row), a.inverse_temperature);
    const float logs = logf(q.sum) - logf(p.sum);
    return sum_of_row(
        a.layout, [&](int, float s, float t) { return p.probability(t) * (p.log_term(t) - q.log_term(s) + logs); }, q.x,
        p.x);
  }
  static __device__ void gradient(const LossRows& a, std::int64_t row, float factor, const GradientRows& g) {
    const Softmax q(a.layout, a.student.row(row), a.inverse_temperature);
    const Softmax p(a.layout, a.teacher.row(row), a.inverse_temperature);
    write_row(
        a.layout, g.rows.row(row), g.add,
        [&](int, float s, float t) { return (q.probability(s) - p.probability(t)) * factor; }, q.x, p.x);
  }
};

template <bool kNormalise>
struct SquaredErrorRow {
  using F = Normaliser<kNormalise>;
  static __device__ float loss(const LossRows& a, std::int64_t row) {
    const F s(a.layout, a.student.row(row), a.eps), t(a.layout, a.teacher.row(row), a.eps);
    return sum_of_row(
        a.layout, [&](int, float x, float y) { return (s(x) - t(y)) * (s(x) - t(y)); }, s.x, t.x);
  }
  /// With e = f(s) - f(t): ds = factor rstd (e - mean(e) - f(s) mean(e f(s))).
  static __device__ void gradient(const LossRows& a, std::int64_t row, float factor, const GradientRows& g) {
    const F s(a.layout, a.student.row(row), a.eps), t(a.layout, a.teacher.row(row), a.eps);
    float mean = 0, along = 0;
    if constexpr (kNormalise) {
      const float count = static_cast<float>(a.layout.n);
      mean = sum_of_row(
                 a.layout, [&](int, float x, float y) { return s(x) - t(y); }, s.x, t.x) /
             count;
      along = sum_of_row(
                  a.layout, [&](int, float x, float y) { return (s(x) - t(y)) * s(x); }, s.x, t.x) /
              count;
    }
    write_row(
        a.layout, g.rows.row(row), g.add,
        [&](int, float x, float y) {
          float e = s(x) - t(y);
          if constexpr (kNormalise) e = __fmaf_rn(-s(x), along, e - mean);
          return e * (factor * s.rstd);
        },
        s.x, t.x);
  }
};

/// of_row (rows) = each row's loss; 0 for rows that do not count, which are not read.
template <class Row>
static __global__ void __launch_bounds__(32 * kWarpsOfBlock) loss_of_rows(LossRows a, TwoFloat* of_row) {
  const std::int64_t row = warp_row();
  if (row >= a.rows) return;
  const float loss = a.counted.counts(row) ? Row::loss(a, row) : 0.0f;
  if (lane() == 0) of_row[row] = {loss, 0.0f};
}

/// Rows that count, by one block; thread 0 gets it.
__device__ __forceinline__ std::int64_t count_rows(const CountedRows& counted, std::int64_t rows) {
  if (!counted.data) return rows;
  std::int64_t count = 0;
  for (std::int64_t first = 0; first < rows; first += kSumThreads) {
    const std::int64_t row = first + threadIdx.x;
    count += __syncthreads_count(row < rows && counted.counts(row));
  }
  return count;
}

/// scale * sum / (counted rows * elements_each), of all rows.
struct Mean {
  CountedRows counted;
  std::int64_t rows;
  int elements_each;
  float scale;

  /// What a sum is divided by; for one whole block, whose thread 0 gets it.
  __device__ std::int64_t count() const { return count_rows(counted, rows) * elements_each; }
};

/// loss (set or add) = the share in the mean of the `rows` rows whose losses are of_row.
static __global__ void __launch_bounds__(kSumThreads)
    mean_of_rows(const TwoFloat* of_row, std::int64_t rows, Mean mean, bool add, float* loss) {
  const std::int64_t count = mean.count();
  const TwoFloat sum = block_sum(of_row, rows);
  if (threadIdx.x != 0) return;
  const float share = count > 0 ? sum.value() * mean.scale / static_cast<float>(count) : 0.0f;
  *loss = add ? *loss + share : share;
}

/// *factor = what a row's gradient is multiplied by.
static __global__ void __launch_bounds__(kSumThreads) gradient_factor(const float* dloss, Mean mean, float* factor) {
  const std::int64_t count = mean.count();
  if (threadIdx.x == 0) *factor = mean.scale * *dloss / static_cast<float>(count);  // read only if a row counts
}

template <class Row>
static __global__ void __launch_bounds__(32 * kWarpsOfBlock)
    gradient_of_rows(LossRows a, const float* factor, GradientRows g) {
  const std::int64_t row = warp_row();
  if (row >= a.rows) return;
  if (a.counted.counts(row)) return Row::gradient(a, row, *factor, g);
  if (!g.add) write_row(a.layout, g.rows.row(row), false, [](int) { return 0.0f; });
}

}  // namespace cald::cuda
