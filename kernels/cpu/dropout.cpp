// Dropout whose mask is drawn from each element's own key, forward and backward alike.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dropout.cpp"
#include "kernels/cpu/simd.h"

// After simd.h, which includes this file once for each target.
#include <algorithm>

#include "kernels/cpu/parallel.h"
#include "kernels/elementwise.h"

HWY_BEFORE_NAMESPACE();
namespace cald::HWY_NAMESPACE {

/// One row of n features: y (set or add) = dropout(x).
void drop_row(const float* x, float* y, std::int64_t n, const Dropout& dropout, std::uint32_t sample,
              std::uint32_t position, bool add) {
  constexpr std::int64_t kAtOnce = 256;
  HWY_ALIGN std::uint16_t bits[kAtOnce + kDropoutPad];
  const Floats d;
  const std::uint32_t threshold = dropout.threshold();
  const float scale = dropout.scale();
  for (std::int64_t first = 0; first < n; first += kAtOnce) {
    const std::int64_t here = HWY_MIN(kAtOnce, n - first);
    fill_dropout_bits(dropout.key, sample, position, static_cast<std::uint32_t>(first), here, bits);
    each_vector(d, here, [&](std::int64_t i, auto part) HWY_ATTR {
      const FloatVec v = apply_dropout(d, load(d, x + first + i, part), bits + i, threshold, scale);
      float* to = y + first + i;
      store(d, add ? Add(load(d, to, part), v) : v, to, part);
    });
  }
}

}  // namespace cald::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cald {
HWY_EXPORT(drop_row);

template <>
void run<Device::cpu>(Exec& exec, const DropoutApply& a) {
  const TensorRef &x = a.x, &y = a.y.to;
  const int rank = x.shape.rank();
  const bool ok = (rank == 2 || rank == 3) && x.shape == y.shape && (x.cols() <= 1 || x.strides[-1] == 1) &&
                  (y.cols() <= 1 || y.strides[-1] == 1);
  if (!ok)
    throw Error("dropout: x " + x.shape.str() + " and y " + y.shape.str() +
                " must be (B, S, F) or (B, F) with unit stride inside a row");
  if (!a.dropout.active()) return a.y.add ? run<Device::cpu>(exec, Add{y, x, y}) : run<Device::cpu>(exec, Copy{x, y});
  const std::int64_t length = rank == 3 ? x.dim(1) : 1, cols = x.cols();
  const auto row_at = [&](const TensorRef& t, std::int64_t b, std::int64_t s) {
    return t.f32() + b * t.strides[0] + (rank == 3 ? s * t.strides[1] : 0);
  };
  const std::int64_t grain = std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(cols, 1));
  const auto kernel = HWY_DYNAMIC_DISPATCH(drop_row);
  parallel_for(exec, x.dim(0) * length, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t b = row / length, s = row % length;
      const auto sample = static_cast<std::uint32_t>(a.samples.as<std::int32_t>()[b * a.samples.strides[0]]);
      kernel(row_at(x, b, s), row_at(y, b, s), cols, a.dropout, sample, static_cast<std::uint32_t>(s), a.y.add);
    }
  });
}

}  // namespace cald
#endif  // HWY_ONCE
