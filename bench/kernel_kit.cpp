#include "bench/kernel_kit.h"

#include "engine/base/rng.h"
#include "engine/parameter.h"
#include "kernels/elementwise.h"
#include "kernels/transfer.h"

namespace cald {

template <class T, class Value>
TensorRef KernelKit::fill(const Shape& shape, Value&& value_at) {
  std::vector<T> host(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < host.size(); ++i) host[i] = value_at(i);
  const Tensor& t = operands_.emplace_back(context_.empty(shape, DTypeOf<T>::value));
  context_.launch(Upload{host.data(), t});
  return t;
}

/// Large operands repeat a stretch of values: drawing them all would take longer than the measurement.
TensorRef KernelKit::normal(const Shape& shape, DType dtype, bool magnitudes) {
  static const std::vector<float> kStretch = [] {
    RandomStream random(7, 0);
    std::vector<float> v(65521);  // a prime, so that rows differ
    for (float& x : v) x = random.normal();
    return v;
  }();
  const TensorRef exact = fill<float>(shape, [&](std::size_t i) {
    const float x = kStretch[i % kStretch.size()];
    return magnitudes ? std::abs(x) : x;
  });
  if (dtype == exact.dtype) return exact;
  const Tensor& rounded = operands_.emplace_back(context_.empty(shape, dtype));
  context_.launch(Copy{exact, rounded});
  return rounded;
}

TensorRef KernelKit::weight(const Shape& shape, Packing packing) {
  const TensorRef w = values(shape);
  if (context_.exec().compute == DType::f32) return w;
  Tensor copy = weight_copy(shape, packing, memory_, MemClass::weights, "weight");
  if (!copy) copy = weight_copy(shape, Packing::forward, memory_, MemClass::weights, "weight");
  context_.launch(Copy{w, copy});
  return operands_.emplace_back(copy);
}

TensorRef KernelKit::drawn(const Shape& shape, std::int64_t end) {
  RandomStream random(7, 1);
  return fill<std::int32_t>(
      shape, [&](std::size_t) { return static_cast<std::int32_t>(random.below(static_cast<std::uint32_t>(end))); });
}

TensorRef KernelKit::counted(const Shape& shape) {
  return fill<std::int32_t>(
      shape, [&](std::size_t i) { return static_cast<std::int32_t>(i % static_cast<std::size_t>(shape[-1])); });
}

TensorRef KernelKit::constant(const Shape& shape, std::int32_t value) {
  return fill<std::int32_t>(shape, [&](std::size_t) { return value; });
}

void KernelKit::report(const Cost& cost) {
  const auto rate = [&](double amount) {
    return benchmark::Counter(amount, benchmark::Counter::kIsIterationInvariantRate);
  };
  if (cost.flop > 0) state_.counters["flop_per_second"] = rate(cost.flop);  // of zeros, its deviation would be NaN
  state_.counters["bytes_per_second"] = rate(cost.bytes);
  state_.counters["share_of_peak"] = rate(peak_.least_seconds(cost));
}

}  // namespace cald
