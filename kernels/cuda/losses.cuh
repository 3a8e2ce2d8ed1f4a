// Losses with their gradients: a warp for each row. A row's loss goes to scratch memory, whence one block sums them in
// two floats each and in a fixed order.
//
// Device memory, with n elements in R rows: bytes that threads ask for, of which each element comes once from memory
// and again from the caches. Loss: 8 n (cross-entropy), 24 n (KL), 8 n (squared error; 24 n normalised); gradient: 12
// n, 24 n, 8 n (40 n); it is written once. A label, a mask and the factor are read by each lane, 128 R bytes for each
// time; a row's loss is 8 bytes.
#pragma once
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/two_float.cuh"

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

/// Calls fn(i) for the lane's elements of a row.
template <class Fn>
__device__ __forceinline__ void each_of_row(int n, const Fn& fn) {
  for (int i = lane(); i < n; i += 32) fn(i);
}
template <class Fn>
__device__ __forceinline__ float sum_of_row(int n, const Fn& term) {
  float sum = 0;
  each_of_row(n, [&](int i) { sum += term(i); });
  return warp_sum(sum);
}

/// softmax(a x)_i = exp(a (x_i - top)) / sum.
struct SoftmaxOf {
  float top, sum;
};
__device__ __forceinline__ SoftmaxOf softmax_of(const float* x, int n, float a) {
  float top = -__builtin_huge_valf();
  each_of_row(n, [&](int i) { top = fmaxf(top, x[i]); });
  top = warp_max(top);
  return {top, sum_of_row(n, [&](int i) { return expf(a * (x[i] - top)); })};
}
__device__ __forceinline__ float probability(float x, SoftmaxOf s, float a) { return expf(a * (x - s.top)) / s.sum; }

/// A row's gradient: set or add.
struct GradientRows {
  TensorRows<float> rows;
  bool add = false;

  __device__ void write(float* row, int i, float value) const { row[i] = add ? row[i] + value : value; }
};

struct LossRows {
  TensorRows<const float> student, teacher;  ///< cross-entropy: the logits alone
  CountedRows counted;
  std::int64_t rows;
  int n;
  float inverse_temperature = 1;
  float eps = 0;
};

/// LayerNorm without affine parameters: f(x) = (x - mean) rstd; or the identity.
template <bool kNormalise>
struct Normaliser {
  const float* x;
  float mean = 0, rstd = 1;

  __device__ Normaliser(const float* row, int n, float eps) : x(row) {
    if constexpr (kNormalise) {
      const float count = static_cast<float>(n);
      mean = sum_of_row(n, [&](int i) { return x[i]; }) / count;
      const float squares = sum_of_row(n, [&](int i) { return (x[i] - mean) * (x[i] - mean); });
      rstd = 1.0f / sqrtf(squares / count + eps);
    }
  }
  __device__ float operator()(int i) const {
    // Not fused with what is taken from it: equal rows differ by exactly nothing.
    if constexpr (kNormalise) return __fmul_rn(x[i] - mean, rstd);
    return x[i];
  }
};

/// Each kind of loss: the loss of a row (every lane gets it), and its gradient times `factor`.
struct CrossEntropyRow {
  static __device__ float loss(const LossRows& a, std::int64_t row) {
    const float* x = a.student.row(row);
    const SoftmaxOf s = softmax_of(x, a.n, 1.0f);
    return logf(s.sum) + (s.top - x[a.counted.label(row)]);
  }
  static __device__ void gradient(const LossRows& a, std::int64_t row, float factor, const GradientRows& g) {
    const float* x = a.student.row(row);
    float* to = g.rows.row(row);
    const SoftmaxOf s = softmax_of(x, a.n, 1.0f);
    const int label = a.counted.label(row);
    each_of_row(a.n, [&](int i) {
      const float p = probability(x[i], s, 1.0f);
      g.write(to, i, (i == label ? p - 1.0f : p) * factor);
    });
  }
};

struct KlRow {
  static __device__ float loss(const LossRows& a, std::int64_t row) {
    const float *s = a.student.row(row), *t = a.teacher.row(row), inverse = a.inverse_temperature;
    const SoftmaxOf q = softmax_of(s, a.n, inverse), p = softmax_of(t, a.n, inverse);
    const float logs = logf(q.sum) - logf(p.sum);
    return sum_of_row(a.n, [&](int i) {
      // Not fused with the difference: equal rows differ by exactly nothing.
      const float log_p = __fmul_rn(t[i] - p.top, inverse), log_q = __fmul_rn(s[i] - q.top, inverse);
      return probability(t[i], p, inverse) * (log_p - log_q + logs);
    });
  }
  static __device__ void gradient(const LossRows& a, std::int64_t row, float factor, const GradientRows& g) {
    const float *s = a.student.row(row), *t = a.teacher.row(row), inverse = a.inverse_temperature;
    float* to = g.rows.row(row);
    const SoftmaxOf q = softmax_of(s, a.n, inverse), p = softmax_of(t, a.n, inverse);
    each_of_row(
        a.n, [&](int i) { g.write(to, i, (probability(s[i], q, inverse) - probability(t[i], p, inverse)) * factor); });
  }
};

template <bool kNormalise>
struct SquaredErrorRow {
  static __device__ float loss(const LossRows& a, std::int64_t row) {
    const Normaliser<kNormalise> s(a.student.row(row), a.n, a.eps), t(a.teacher.row(row), a.n, a.eps);
    return sum_of_row(a.n, [&](int i) { return (s(i) - t(i)) * (s(i) - t(i)); });
  }
  /// With e = f(s) - f(t): ds = factor rstd (e - mean(e) - f(s) mean(e f(s))).
  static __device__ void gradient(const LossRows& a, std::int64_t row, float factor, const GradientRows& g) {
    const Normaliser<kNormalise> s(a.student.row(row), a.n, a.eps), t(a.teacher.row(row), a.n, a.eps);
    float* to = g.rows.row(row);
    float mean = 0, along = 0;
    if constexpr (kNormalise) {
      const float count = static_cast<float>(a.n);
      mean = sum_of_row(a.n, [&](int i) { return s(i) - t(i); }) / count;
      along = sum_of_row(a.n, [&](int i) { return (s(i) - t(i)) * s(i); }) / count;
    }
    each_of_row(a.n, [&](int i) {
      float e = s(i) - t(i);
      if constexpr (kNormalise) e = __fmaf_rn(-s(i), along, e - mean);
      g.write(to, i, e * (factor * s.rstd));
    });
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
  float* to = g.rows.row(row);
  if (!g.add) each_of_row(a.n, [&](int i) { to[i] = 0.0f; });
}

}  // namespace cald::cuda
