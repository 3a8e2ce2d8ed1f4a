// Losses on the CPU. A row's loss goes to scratch memory, whence one thread sums them in f64 and in the rows' order.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/losses.cpp"
#include "kernels/cpu/simd.h"

// After simd.h, which includes this file once for each target.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/parallel.h"
#include "kernels/losses.h"

#ifndef CALD_KERNELS_CPU_LOSSES
#define CALD_KERNELS_CPU_LOSSES
namespace cald {

/// softmax(a x)_i = exp(a (x_i - top)) / sum.
struct SoftmaxOf {
  float top, sum;
};

/// A row's gradient: set or add.
struct RowGradient {
  float* to;
  bool add;
};

}  // namespace cald
#endif

HWY_BEFORE_NAMESPACE();
namespace cald::HWY_NAMESPACE {

HWY_INLINE FloatVec or_least(FloatVec v, Whole) { return v; }
HWY_INLINE FloatVec or_least(FloatVec v, First part) {
  const Floats d;
  return IfThenElse(FirstN(d, static_cast<std::size_t>(part.n)), v, Set(d, -__builtin_huge_valf()));
}

SoftmaxOf softmax_of(const float* x, std::int64_t n, float a) {
  const Floats d;
  FloatVec top = Set(d, -__builtin_huge_valf());
  each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR { top = Max(top, or_least(load(d, x + i, part), part)); });
  top = MaxOfLanes(d, top);
  const FloatVec factor = Set(d, a);
  const float sum = sum_terms(
      n, [&](std::int64_t i, auto part) HWY_ATTR { return exp_of(d, Mul(Sub(load(d, x + i, part), top), factor)); });
  return {GetLane(top), sum};
}

template <class Part>
HWY_INLINE FloatVec probability(const float* x, SoftmaxOf s, float a, Part part) {
  const Floats d;
  return Div(exp_of(d, Mul(Sub(load(d, x, part), Set(d, s.top)), Set(d, a))), Set(d, s.sum));
}

template <class Part>
HWY_INLINE void write(FloatVec v, const RowGradient& g, std::int64_t i, Part part) {
  const Floats d;
  store(d, g.add ? Add(load(d, g.to + i, part), v) : v, g.to + i, part);
}

/// d (log sum exp(x) - x[label]) times `factor`.
void cross_entropy_row_backward(const float* x, std::int64_t n, std::int64_t label, float factor, RowGradient g) {
  const Floats d;
  const SoftmaxOf s = softmax_of(x, n, 1.0f);
  const auto target = static_cast<float>(label);
  each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR {
    const auto hit = Eq(Iota(d, static_cast<float>(i)), Set(d, target));
    const FloatVec p = probability(x + i, s, 1.0f, part);
    write(Mul(IfThenElse(hit, Sub(p, Set(d, 1.0f)), p), Set(d, factor)), g, i, part);
  });
}

/// sum_i p_i (log p_i - log q_i), p of the teacher t and q of the student s at inverse temperature a.
double kl_row(const float* s, const float* t, std::int64_t n, float a) {
  const Floats d;
  const SoftmaxOf q = softmax_of(s, n, a), p = softmax_of(t, n, a);
  const FloatVec logs = Set(d, __builtin_logf(q.sum) - __builtin_logf(p.sum));
  return static_cast<double>(sum_terms(n, [&](std::int64_t i, auto part) HWY_ATTR {
    const FloatVec log_p = Mul(Sub(load(d, t + i, part), Set(d, p.top)), Set(d, a));
    const FloatVec log_q = Mul(Sub(load(d, s + i, part), Set(d, q.top)), Set(d, a));
    return Mul(probability(t + i, p, a, part), Add(Sub(log_p, log_q), logs));
  }));
}

void kl_row_backward(const float* s, const float* t, std::int64_t n, float a, float factor, RowGradient g) {
  const Floats d;
  const SoftmaxOf q = softmax_of(s, n, a), p = softmax_of(t, n, a);
  each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR {
    const FloatVec difference = Sub(probability(s + i, q, a, part), probability(t + i, p, a, part));
    write(Mul(difference, Set(d, factor)), g, i, part);
  });
}

double squared_error_row(const float* s, const float* t, std::int64_t n) {
  const Floats d;
  return static_cast<double>(sum_terms(n, [&](std::int64_t i, auto part) HWY_ATTR {
    const FloatVec e = Sub(load(d, s + i, part), load(d, t + i, part));
    return Mul(e, e);
  }));
}

void squared_error_row_backward(const float* s, const float* t, std::int64_t n, float factor, RowGradient g) {
  const Floats d;
  const FloatVec f = Set(d, factor);
  each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR {
    write(Mul(Sub(load(d, s + i, part), load(d, t + i, part)), f), g, i, part);
  });
}

/// LayerNorm without affine parameters: f(x) = (x - mean) rstd.
struct Normaliser {
  const float* x;
  float mean, rstd;
  template <class Part>
  HWY_INLINE FloatVec operator()(std::int64_t i, Part part) const {
    const Floats d;
    return Mul(Sub(load(d, x + i, part), Set(d, mean)), Set(d, rstd));
  }
};

inline Normaliser normaliser(const float* x, std::int64_t n, float eps) {
  const Floats d;
  const auto count = static_cast<float>(n);
  const float mean = sum_terms(n, [&](std::int64_t i, auto part) HWY_ATTR { return load(d, x + i, part); }) / count;
  const float squares = sum_terms(n, [&](std::int64_t i, auto part) HWY_ATTR {
    const FloatVec c = Sub(load(d, x + i, part), Set(d, mean));
    return Mul(c, c);
  });
  return {x, mean, 1.0f / __builtin_sqrtf(squares / count + eps)};
}

double normalised_error_row(const float* s, const float* t, std::int64_t n, float eps) {
  const Normaliser fs = normaliser(s, n, eps), ft = normaliser(t, n, eps);
  return static_cast<double>(sum_terms(n, [&](std::int64_t i, auto part) HWY_ATTR {
    const FloatVec e = Sub(fs(i, part), ft(i, part));
    return Mul(e, e);
  }));
}

/// With e = f(s) - f(t): ds = factor rstd (e - mean(e) - f(s) mean(e f(s))).
void normalised_error_row_backward(const float* s, const float* t, std::int64_t n, float eps, float factor,
                                   RowGradient g) {
  const Floats d;
  const Normaliser fs = normaliser(s, n, eps), ft = normaliser(t, n, eps);
  const auto error = [&](std::int64_t i, auto part) HWY_ATTR { return Sub(fs(i, part), ft(i, part)); };
  const auto count = static_cast<float>(n);
  const float mean = sum_terms(n, error) / count;
  const float along =
      sum_terms(n, [&](std::int64_t i, auto part) HWY_ATTR { return Mul(error(i, part), fs(i, part)); }) / count;
  const FloatVec f = Set(d, factor * fs.rstd);
  each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR {
    const FloatVec e = NegMulAdd(fs(i, part), Set(d, along), Sub(error(i, part), Set(d, mean)));
    write(Mul(e, f), g, i, part);
  });
}

}  // namespace cald::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cald {
HWY_EXPORT(softmax_of);
HWY_EXPORT(cross_entropy_row_backward);
HWY_EXPORT(kl_row);
HWY_EXPORT(kl_row_backward);
HWY_EXPORT(squared_error_row);
HWY_EXPORT(squared_error_row_backward);
HWY_EXPORT(normalised_error_row);
HWY_EXPORT(normalised_error_row_backward);
namespace {

/// Elements that come before index i of the first `dims` dimensions, taken in row-major order.
std::int64_t offset_of(const TensorRef& t, std::int64_t i, int dims) {
  std::int64_t offset = 0;
  for (int d = dims - 1; d >= 0; --d) {
    offset += i % t.shape[d] * t.strides[d];
    i /= t.shape[d];
  }
  return offset;
}
float* row_of(const TensorRef& t, std::int64_t row) { return t.f32() + offset_of(t, row, t.shape.rank() - 1); }
std::int32_t int_at(const TensorRef& t, std::int64_t i) {
  return t.as<std::int32_t>()[offset_of(t, i, t.shape.rank())];
}
RowGradient gradient_row(const GradRef& g, std::int64_t row) { return {row_of(g.to, row), g.add}; }

/// Rows that are worth a thread, some 20 microseconds.
std::int64_t grain_of(const TensorRef& t) { return 16384 / std::max<std::int64_t>(t.cols(), 1) + 1; }

template <class Fn>
void each_row(const Exec& exec, const TensorRef& t, const Fn& fn) {
  parallel_for(exec, t.rows(), grain_of(t), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) fn(i);
  });
}

/// The sum of fn(row) over t's rows, which does not depend on the number of threads.
template <class Fn>
double sum_rows(const Exec& exec, const TensorRef& t, const Fn& fn) {
  auto* of_row = static_cast<double*>(exec.workspace);
  each_row(exec, t, [&](std::int64_t i) { of_row[i] = fn(i); });
  double sum = 0.0;
  for (std::int64_t i = 0; i < t.rows(); ++i) sum += of_row[i];
  return sum;
}

std::size_t row_scratch(const TensorRef& t) { return static_cast<std::size_t>(t.rows()) * sizeof(double); }

void skip_row(const RowGradient& g, std::int64_t n) {
  if (!g.add) std::fill(g.to, g.to + n, 0.0f);
}

std::int64_t counted_labels(const TensorRef& labels) {
  std::int64_t n = 0;
  for (std::int64_t i = 0; i < labels.numel(); ++i) n += int_at(labels, i) >= 0;
  return n;
}

std::int64_t counted_rows(const TensorRef& mask, std::int64_t rows) {
  if (!mask.present) return rows;
  std::int64_t n = 0;
  for (std::int64_t i = 0; i < rows; ++i) n += int_at(mask, i) != 0;
  return n;
}

void set_mean(const TensorRef& loss, double sum, std::int64_t count, bool add = false) {
  const float mean = count ? static_cast<float>(sum / static_cast<double>(count)) : 0.0f;
  *loss.f32() = add ? *loss.f32() + mean : mean;
}

/// The rows that cross-entropy's or KL's mean is over.
template <class Args>
std::int64_t rows_of_mean(const Args& a) {
  if constexpr (requires { a.labels; })
    return counted_labels(a.all_labels.present ? a.all_labels : a.labels);
  else
    return a.all_rows ? a.all_rows : a.student.rows();
}

}  // namespace

template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const CrossEntropyForward& a) {
  return row_scratch(a.logits);
}

template <>
void run<Device::cpu>(Exec& exec, const CrossEntropyForward& a) {
  const std::int64_t n = a.logits.cols();
  const double sum = sum_rows(exec, a.logits, [&](std::int64_t i) {
    const std::int32_t label = int_at(a.labels, i);
    if (label < 0) return 0.0;
    const float* x = row_of(a.logits, i);
    const SoftmaxOf s = HWY_DYNAMIC_DISPATCH(softmax_of)(x, n, 1.0f);
    return std::log(static_cast<double>(s.sum)) + (static_cast<double>(s.top) - static_cast<double>(x[label]));
  });
  set_mean(a.loss, sum, rows_of_mean(a), a.add);
}

template <>
void run<Device::cpu>(Exec& exec, const CrossEntropyBackward& a) {
  const std::int64_t n = a.logits.cols(), count = rows_of_mean(a);
  const float factor = *a.dloss.f32() / static_cast<float>(std::max<std::int64_t>(count, 1));
  each_row(exec, a.logits, [&](std::int64_t i) {
    const std::int32_t label = int_at(a.labels, i);
    const RowGradient g = gradient_row(a.dlogits, i);
    if (label < 0) return skip_row(g, n);
    HWY_DYNAMIC_DISPATCH(cross_entropy_row_backward)(row_of(a.logits, i), n, label, factor, g);
  });
}

template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const KlForward& a) {
  return row_scratch(a.student);
}

template <>
void run<Device::cpu>(Exec& exec, const KlForward& a) {
  const std::int64_t n = a.student.cols();
  const double sum = sum_rows(exec, a.student, [&](std::int64_t i) {
    return HWY_DYNAMIC_DISPATCH(kl_row)(row_of(a.student, i), row_of(a.teacher, i), n, 1.0f / a.temperature);
  });
  set_mean(a.loss, sum * static_cast<double>(a.scale), rows_of_mean(a), a.add);
}

template <>
void run<Device::cpu>(Exec& exec, const KlBackward& a) {
  const std::int64_t n = a.student.cols();
  const auto rows = static_cast<float>(std::max<std::int64_t>(rows_of_mean(a), 1));
  const float factor = *a.dloss.f32() * a.scale / (rows * a.temperature);
  each_row(exec, a.student, [&](std::int64_t i) {
    HWY_DYNAMIC_DISPATCH(kl_row_backward)
    (row_of(a.student, i), row_of(a.teacher, i), n, 1.0f / a.temperature, factor, gradient_row(a.dstudent, i));
  });
}

template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const SquaredErrorForward& a) {
  return row_scratch(a.student);
}

template <>
void run<Device::cpu>(Exec& exec, const SquaredErrorForward& a) {
  const std::int64_t n = a.student.cols(), rows = a.student.rows();
  const double sum = sum_rows(exec, a.student, [&](std::int64_t i) {
    if (a.mask.present && int_at(a.mask, i) == 0) return 0.0;
    const float *s = row_of(a.student, i), *t = row_of(a.teacher, i);
    return a.normalise ? HWY_DYNAMIC_DISPATCH(normalised_error_row)(s, t, n, a.eps)
                       : HWY_DYNAMIC_DISPATCH(squared_error_row)(s, t, n);
  });
  set_mean(a.loss, sum, counted_rows(a.mask, rows) * n);
}

template <>
void run<Device::cpu>(Exec& exec, const SquaredErrorBackward& a) {
  const std::int64_t n = a.student.cols();
  const std::int64_t count = std::max<std::int64_t>(counted_rows(a.mask, a.student.rows()) * n, 1);
  const float factor = 2.0f * *a.dloss.f32() / static_cast<float>(count);
  each_row(exec, a.student, [&](std::int64_t i) {
    const RowGradient g = gradient_row(a.dstudent, i);
    if (a.mask.present && int_at(a.mask, i) == 0) return skip_row(g, n);
    const float *s = row_of(a.student, i), *t = row_of(a.teacher, i);
    if (a.normalise)
      HWY_DYNAMIC_DISPATCH(normalised_error_row_backward)(s, t, n, a.eps, factor, g);
    else
      HWY_DYNAMIC_DISPATCH(squared_error_row_backward)(s, t, n, factor, g);
  });
}

}  // namespace cald
#endif
