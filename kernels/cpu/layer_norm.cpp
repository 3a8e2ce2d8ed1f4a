// LayerNorm with residual and dropout, one pass over memory in each direction.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/layer_norm.cpp"
#include "kernels/cpu/simd.h"

// After simd.h, which includes this file once for each target.
#include <algorithm>
#include <string>

#include "kernels/cpu/parallel.h"
#include "kernels/layer_norm.h"

#ifndef CALD_KERNELS_CPU_LAYER_NORM
#define CALD_KERNELS_CPU_LAYER_NORM
namespace cald {

/// The tensors of one row of n features; null where there is none. X is the type of x's elements.
template <class X>
struct NormRow {
  const X* x;
  const float *residual, *weight, *bias;
  float *sum, *y, *mean, *rstd;
  std::int64_t n;
  float eps;
  const Dropout* dropout;  // null if not active
  std::uint32_t sample, position;
};

template <class X>
struct NormRowBackward {
  const float *sum, *dy, *weight;
  float mean, rstd;
  X* dx;
  float* dresidual;
  bool add_dx, add_dresidual;
  float *dweight, *dbias;  // this block of rows' sums so far
  std::int64_t n;
  const Dropout* dropout;
  std::uint32_t sample, position;
};

}  // namespace cald
#endif

HWY_BEFORE_NAMESPACE();
namespace cald::HWY_NAMESPACE {

inline constexpr std::int64_t kBitsAtOnce = 256;

/// Calls fn(i, part, bits) for vectors over a row, `bits` being those that decide features i and following; null
/// without dropout.
template <class Fn>
HWY_INLINE void each_with_bits(const Dropout* dropout, std::uint32_t sample, std::uint32_t position, std::int64_t n,
                               Fn fn) {
  const Floats d;
  if (dropout == nullptr) {
    const std::uint16_t* none = nullptr;
    each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR { fn(i, part, none); });
    return;
  }
  HWY_ALIGN std::uint16_t bits[kBitsAtOnce + kDropoutPad];
  for (std::int64_t first = 0; first < n; first += kBitsAtOnce) {
    const std::int64_t here = HWY_MIN(kBitsAtOnce, n - first);
    fill_dropout_bits(dropout->key, sample, position, static_cast<std::uint32_t>(first), here, bits);
    each_vector(d, here, [&](std::int64_t i, auto part) HWY_ATTR {
      fn(first + i, part, static_cast<const std::uint16_t*>(bits + i));
    });
  }
}

template <class X>
HWY_INLINE void normalise_row(const NormRow<X>& r) {
  const Floats d;
  // A row of bf16 is widened on its way into the buffer, so that all later passes read f32.
  constexpr bool kWiden = !hwy::IsSame<X, float>();
  const float* s = nullptr;
  if constexpr (!kWiden) s = r.x;
  if (kWiden || r.residual != nullptr || r.dropout != nullptr) {
    float* to = r.sum != nullptr ? r.sum : r.y;  // y serves as the row's buffer where the sum is not wanted
    const std::uint32_t threshold = r.dropout ? r.dropout->threshold() : 0;
    const float scale = r.dropout ? r.dropout->scale() : 1.0f;
    each_with_bits(r.dropout, r.sample, r.position, r.n,
                   [&](std::int64_t i, auto part, const std::uint16_t* bits) HWY_ATTR {
                     FloatVec v = load(d, r.x + i, part);
                     if (bits != nullptr) v = apply_dropout(d, v, bits, threshold, scale);
                     if (r.residual != nullptr) v = Add(load(d, r.residual + i, part), v);
                     store(d, v, to + i, part);
                   });
    s = to;
  } else if (r.sum != nullptr) {
    each_vector(d, r.n, [&](std::int64_t i, auto part) HWY_ATTR { store(d, load(d, r.x + i, part), r.sum + i, part); });
  }
  const auto count = static_cast<float>(r.n);
  const float mean = sum_terms(r.n, [&](std::int64_t i, auto part) HWY_ATTR { return load(d, s + i, part); }) / count;
  const FloatVec vmean = Set(d, mean);
  const float squares = sum_terms(r.n, [&](std::int64_t i, auto part) HWY_ATTR {
    const FloatVec c = Sub(load(d, s + i, part), vmean);
    return Mul(c, c);
  });
  const float rstd = 1.0f / __builtin_sqrtf(squares / count + r.eps);
  const FloatVec vrstd = Set(d, rstd);
  each_vector(d, r.n, [&](std::int64_t i, auto part) HWY_ATTR {
    FloatVec v = Mul(Sub(load(d, s + i, part), vmean), vrstd);
    if (r.weight != nullptr) v = Mul(v, load(d, r.weight + i, part));
    if (r.bias != nullptr) v = Add(v, load(d, r.bias + i, part));
    store(d, v, r.y + i, part);
  });
  if (r.mean != nullptr) *r.mean = mean;
  if (r.rstd != nullptr) *r.rstd = rstd;
}

void norm_row_f32(const NormRow<float>& r) { normalise_row(r); }
void norm_row_bf16(const NormRow<Bf16>& r) { normalise_row(r); }

/// With xhat = (sum - mean) rstd and g = dy weight: d sum = rstd (g - mean(g) - xhat mean(g xhat)).
template <class X>
HWY_INLINE void row_backward(const NormRowBackward<X>& r) {
  const Floats d;
  const FloatVec vmean = Set(d, r.mean), vrstd = Set(d, r.rstd);
  const auto xhat = [&](std::int64_t i, auto part)
                        HWY_ATTR { return Mul(Sub(load(d, r.sum + i, part), vmean), vrstd); };
  const auto weighted = [&](std::int64_t i, auto part, FloatVec dy)
                            HWY_ATTR { return r.weight != nullptr ? Mul(dy, load(d, r.weight + i, part)) : dy; };
  FloatVec sum_g = Zero(d), sum_gx = Zero(d);
  each_vector(d, r.n, [&](std::int64_t i, auto part) HWY_ATTR {
    const FloatVec dy = load(d, r.dy + i, part), h = xhat(i, part);
    const FloatVec g = weighted(i, part, dy);  // 0 in lanes that are not there
    sum_g = Add(sum_g, g);
    sum_gx = MulAdd(g, h, sum_gx);
    if (r.dweight != nullptr) store(d, MulAdd(dy, h, load(d, r.dweight + i, part)), r.dweight + i, part);
    if (r.dbias != nullptr) store(d, Add(load(d, r.dbias + i, part), dy), r.dbias + i, part);
  });
  if (r.dx == nullptr && r.dresidual == nullptr) return;
  const FloatVec inverse = Set(d, 1.0f / static_cast<float>(r.n));
  const FloatVec c1 = Mul(SumOfLanes(d, sum_g), inverse), c2 = Mul(SumOfLanes(d, sum_gx), inverse);
  const std::uint32_t threshold = r.dropout ? r.dropout->threshold() : 0;
  const float scale = r.dropout ? r.dropout->scale() : 1.0f;
  const auto write = [&](FloatVec v, auto* to, bool add, auto part)
                         HWY_ATTR { store(d, add ? Add(load(d, to, part), v) : v, to, part); };
  each_with_bits(r.dx != nullptr ? r.dropout : nullptr, r.sample, r.position, r.n,
                 [&](std::int64_t i, auto part, const std::uint16_t* bits) HWY_ATTR {
                   const FloatVec centred = Sub(weighted(i, part, load(d, r.dy + i, part)), c1);
                   const FloatVec ds = Mul(vrstd, NegMulAdd(xhat(i, part), c2, centred));
                   // x and residual may be one tensor: dresidual sets, then dx adds.
                   if (r.dresidual != nullptr) write(ds, r.dresidual + i, r.add_dresidual, part);
                   if (r.dx == nullptr) return;
                   write(bits != nullptr ? apply_dropout(d, ds, bits, threshold, scale) : ds, r.dx + i, r.add_dx, part);
                 });
}

void norm_row_backward_f32(const NormRowBackward<float>& r) { row_backward(r); }
void norm_row_backward_bf16(const NormRowBackward<Bf16>& r) { row_backward(r); }

/// y (set or add) = the sum over `blocks` rows of n floats that lie `stride` apart, in their order.
void sum_blocks(const float* partials, std::int64_t blocks, std::int64_t stride, float* y, std::int64_t n, bool add) {
  const Floats d;
  each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR {
    FloatVec s = Zero(d);
    for (std::int64_t b = 0; b < blocks; ++b) s = Add(s, load(d, partials + b * stride + i, part));
    store(d, add ? Add(load(d, y + i, part), s) : s, y + i, part);
  });
}

}  // namespace cald::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cald {
HWY_EXPORT(norm_row_f32);
HWY_EXPORT(norm_row_bf16);
HWY_EXPORT(norm_row_backward_f32);
HWY_EXPORT(norm_row_backward_bf16);
HWY_EXPORT(sum_blocks);

namespace {

/// A tensor seen by rows; null rows if it is absent.
template <class T = float>
struct Rows {
  T* data = nullptr;
  std::int64_t stride = 0;
  T* operator()(std::int64_t i) const { return data != nullptr ? data + i * stride : nullptr; }
};

template <class T = float>
Rows<T> rows_of(const char* kernel, const char* operand, const TensorRef& t, const Shape& shape) {
  if (!t.present) return {};
  if (!(t.shape == shape) || !t.is_matrix() || t.dtype != DTypeOf<T>::value)
    throw Error(std::string(kernel) + ": " + operand + " is " + name_of(t.dtype) + " " + t.shape.str() + ", wanted " +
                name_of(DTypeOf<T>::value) + " " + shape.str() + " with one stride between rows");
  return {t.as<T>(), t.row_stride()};
}

/// Which random numbers decide about a row: x is (B, S, D) or (B, D).
struct Keys {
  const Dropout* dropout;
  const std::int32_t* samples = nullptr;
  std::int64_t length = 1, stride = 1;

  Keys(const Dropout& d, const TensorRef& given, const Shape& x) : dropout(d.active() ? &d : nullptr) {
    if (!dropout) return;
    if (!given.present || given.numel() != x[0])
      throw Error("layer_norm: active dropout needs samples of shape [" + std::to_string(x[0]) + "]");
    samples = given.as<std::int32_t>();
    stride = given.strides[0];
    if (x.rank() == 3) length = x[1];
  }
  std::uint32_t sample(std::int64_t row) const {
    return samples ? static_cast<std::uint32_t>(samples[row / length * stride]) : 0;
  }
  std::uint32_t position(std::int64_t row) const { return static_cast<std::uint32_t>(row % length); }
};

std::int64_t row_grain(std::int64_t cols) { return std::max<std::int64_t>(1, 8192 / std::max<std::int64_t>(cols, 1)); }

/// dweight and dbias are summed by blocks of rows, and the blocks in their order. The blocks depend on the number of
/// rows alone, so that the bits do not depend on the number of threads.
struct Blocks {
  std::int64_t rows_each, count;
  explicit Blocks(std::int64_t rows) {
    constexpr std::int64_t kMost = 64, kLeastRows = 16;
    rows_each = std::max(kLeastRows, (rows + kMost - 1) / kMost);
    count = (rows + rows_each - 1) / rows_each;
  }
};

template <class X, class Kernel>
void forward_as(const Exec& exec, const LayerNormForward& a, const Kernel& kernel) {
  const Shape& shape = a.x.shape;
  const char* name = LayerNormForward::name;
  const Rows<X> x = rows_of<X>(name, "x", a.x, shape);
  const Rows residual = rows_of(name, "residual", a.residual, shape);
  const Rows sum = rows_of(name, "sum", a.sum, shape), y = rows_of(name, "y", a.y, shape);
  const Keys keys(a.dropout, a.samples, shape);
  const auto element = [](const TensorRef& t, std::int64_t i) { return t.present ? t.f32() + i : nullptr; };
  parallel_for(exec, a.x.rows(), row_grain(a.x.cols()), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      kernel({x(i), residual(i), element(a.weight, 0), element(a.bias, 0), sum(i), y(i), element(a.mean, i),
              element(a.rstd, i), a.x.cols(), a.eps, keys.dropout, keys.sample(i), keys.position(i)});
  });
}

template <class X, class Kernel>
void backward_as(const Exec& exec, const LayerNormBackward& a, const Kernel& kernel) {
  const Shape& shape = a.dy.shape;
  const std::int64_t cols = a.dy.cols(), rows = a.dy.rows();
  const char* name = LayerNormBackward::name;
  const Rows sum = rows_of(name, "sum", a.sum, shape), dy = rows_of(name, "dy", a.dy, shape);
  const Rows<X> dx = rows_of<X>(name, "dx", a.dx.to, shape);
  const Rows dresidual = rows_of(name, "dresidual", a.dresidual.to, shape);
  const Keys keys(a.dropout, a.samples, shape);
  const Blocks blocks(rows);
  const float* weight = a.weight.present ? a.weight.f32() : nullptr;
  auto* partials = static_cast<float*>(exec.workspace);  // (blocks, 2, cols): dweight's, then dbias's
  const std::int64_t grain = std::max<std::int64_t>(1, row_grain(cols) / blocks.rows_each);
  parallel_for(exec, blocks.count, grain, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      float* dweight = a.dweight ? partials + b * 2 * cols : nullptr;
      float* dbias = a.dbias ? partials + (b * 2 + 1) * cols : nullptr;
      if (dweight) std::fill_n(dweight, cols, 0.0f);
      if (dbias) std::fill_n(dbias, cols, 0.0f);
      for (std::int64_t i = b * blocks.rows_each; i < std::min(rows, (b + 1) * blocks.rows_each); ++i)
        kernel({sum(i), dy(i), weight, a.mean.f32()[i], a.rstd.f32()[i], dx(i), dresidual(i), a.dx.add, a.dresidual.add,
                dweight, dbias, cols, keys.dropout, keys.sample(i), keys.position(i)});
    }
  });
  const auto finish = [&](const GradRef& to, const float* from) {
    if (to) HWY_DYNAMIC_DISPATCH(sum_blocks)(from, blocks.count, 2 * cols, to.to.f32(), cols, to.add);
  };
  finish(a.dweight, partials);
  finish(a.dbias, partials + cols);
}

}  // namespace

template <>
void run<Device::cpu>(Exec& exec, const LayerNormForward& a) {
  if (a.x.dtype == DType::bf16)
    forward_as<Bf16>(exec, a, HWY_DYNAMIC_DISPATCH(norm_row_bf16));
  else
    forward_as<float>(exec, a, HWY_DYNAMIC_DISPATCH(norm_row_f32));
}

template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const LayerNormBackward& a) {
  if (!a.dweight && !a.dbias) return 0;
  return static_cast<std::size_t>(Blocks(a.dy.rows()).count * 2 * a.dy.cols()) * sizeof(float);
}

template <>
void run<Device::cpu>(Exec& exec, const LayerNormBackward& a) {
  if (a.dx && a.dx.to.dtype == DType::bf16)
    backward_as<Bf16>(exec, a, HWY_DYNAMIC_DISPATCH(norm_row_backward_bf16));
  else
    backward_as<float>(exec, a, HWY_DYNAMIC_DISPATCH(norm_row_backward_f32));
}

}  // namespace cald
#endif  // HWY_ONCE
