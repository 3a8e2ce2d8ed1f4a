// Activation functions: values and gradients, extreme inputs, and GELU of every bf16.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/elementwise.h"
#include "ops/elementwise.h"
#include "tests/ops/harness.h"
#include "tests/ops/reference.h"

namespace cald::test {
namespace {

class ActivationTest : public testing::TestWithParam<Activation> {};

TEST_P(ActivationTest, ValuesAndGradients) {
  const Activation f = GetParam();
  // Normal values, and a grid over the range in which the function bends.
  std::vector<float> grid;
  for (int i = -400; i <= 400; ++i) grid.push_back(static_cast<float>(i) * 0.025f + 0.003f);
  std::vector<Input> cases{{{0}}, {{1}}, {{3, 7}}, {{2, 3, 16}}};
  cases.push_back({.shape = {9, 89}, .values = grid});
  for (const Input& input : cases) {
    const Case c{"activation " + input.shape.str(), {input}};
    Case half = in_bf16(c, {0});
    // tanh's slope is taken from its output, which in bf16 is rounded: that is more than rounding the result.
    half.inputs[0].differentiated = f != Activation::tanh;
    for (const Case& each : {c, half})
      check_op(
          each,
          [f]<class T>(const Inputs<T>& in) {
            Array<T> y = in[0];
            for (T& v : y.data) v = activation(f, v);
            return y;
          },
          [f](OpRun& run, const std::vector<Tensor>& in) { return run.tape.apply(Activate{f}, in[0]); });
  }
}

TEST_P(ActivationTest, ExtremeValues) {
  const Activation f = GetParam();
  const float huge = 1e30f, nan = std::numeric_limits<float>::quiet_NaN();
  Place place;
  Context& context = place;
  const Tensor x = tensor_of(context, {5}, std::vector<float>{-huge, huge, nan, -90.0f, 90.0f});
  const Tensor y = context.empty({5}), dy = context.empty({5});
  context.launch(Fill{dy, 1.0f});
  context.launch(ActivationForward{x, y, f});
  const std::vector<float> v = read(y);
  const bool bounded = f == Activation::tanh;
  EXPECT_NEAR(v[0], bounded ? -1.0f : 0.0f, 1e-30f);
  EXPECT_EQ(v[1], bounded ? 1.0f : huge);
  EXPECT_TRUE(std::isnan(v[2]));
  EXPECT_NEAR(v[3], bounded ? -1.0f : 0.0f, 1e-30f);
  EXPECT_EQ(v[4], bounded ? 1.0f : 90.0f);
  const Tensor dx = context.empty({5});
  context.launch(ActivationBackward{bounded ? y : x, dy, {dx, false}, f});
  const std::vector<float> d = read(dx);
  for (std::size_t i : {0, 3}) EXPECT_NEAR(d[i], 0.0f, 1e-6f);
  for (std::size_t i : {1, 4}) EXPECT_NEAR(d[i], bounded ? 0.0f : 1.0f, 1e-6f);
  EXPECT_TRUE(std::isnan(d[2]) || f == Activation::relu);
  // In place, as the tape does it.
  context.launch(ActivationBackward{bounded ? y : x, dy, {dy, false}, f});
  for (std::size_t i : {0, 1, 3, 4}) EXPECT_EQ(read(dy)[i], d[i]);
  // With the value, which takes the place of x.
  const Tensor copy = tensor_of(context, {5}, read(x));
  context.launch(Fill{dy, 1.0f});
  if (!bounded) {
    context.launch(ActivationBackward{copy, dy, {dx, false}, f, copy});
    for (std::size_t i : {0, 1, 3, 4}) {
      EXPECT_EQ(read(dx)[i], d[i]);
      EXPECT_EQ(read(copy)[i], v[i]);
    }
    context.launch(ActivationBackward{x, dy, {dx, true}, f, copy});
    for (std::size_t i : {0, 1, 3, 4}) EXPECT_EQ(read(dx)[i], 2 * d[i]);
  }
  context.launch(ActivationForward{x, x, f});
  for (std::size_t i : {0, 1, 3, 4}) EXPECT_EQ(read(x)[i], v[i]);
}

/// Every finite bf16: value and slope are the nearest bf16, or the next one where they lie almost between two.
TEST(Gelu, OfEveryBf16) {
  std::vector<float> all;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits)
    if (const float x = std::bit_cast<float>(bits << 16); std::isfinite(x)) all.push_back(x);
  const Shape shape{static_cast<std::int64_t>(all.size())};
  Place place;
  Context& context = place;
  const Tensor x = context.empty(shape, DType::bf16), y = context.empty(shape, DType::bf16);
  const Tensor dy = context.empty(shape, DType::bf16), dx = context.empty(shape, DType::bf16);
  context.launch(Copy{tensor_of(context, shape, all), x});
  context.launch(Fill{dy, 1.0f});
  context.launch(ActivationForward{x, y, Activation::gelu});
  context.launch(ActivationBackward{x, dy, {dx, false}, Activation::gelu});
  const auto widened = [&](const Tensor& t) {
    Tensor f = context.empty(shape);
    context.launch(Copy{t, f});
    return read(f);
  };
  const std::vector<float> values = widened(y), slopes = widened(dx);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const double at = all[i], tail = 0.5 * std::erfc(std::abs(at) / std::numbers::sqrt2);
    const double phi = at > 0 ? 1 - tail : tail;
    const double density = std::exp(-at * at / 2) / std::sqrt(2 * std::numbers::pi);
    // Rounding to bf16 is 2^-8 of a number at most; what is rounded is exact to 2^-12. Beyond |x| = 13 the tails, below
    // 2e-36, are lost, and the slope's terms cancel near its zero at -0.75.
    const double value = at * phi, slope = std::abs(at) < 1e18 ? phi + at * density : phi;
    const double unit = std::ldexp(1, -8) + std::ldexp(1, -12);
    ASSERT_NEAR(values[i], value, unit * std::abs(value) + 2e-36) << at;
    ASSERT_NEAR(slopes[i], slope, unit * std::abs(slope) + std::ldexp(phi, -12) + 2e-36) << at;
  }
}

INSTANTIATE_TEST_SUITE_P(All, ActivationTest,
                         testing::Values(Activation::gelu, Activation::gelu_tanh, Activation::relu, Activation::tanh,
                                         Activation::silu));

}  // namespace
}  // namespace cald::test
