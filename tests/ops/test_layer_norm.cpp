// LayerNorm alone, with residual and dropout, and against its composition.
#include <gtest/gtest.h>

#include "kernels/elementwise.h"
#include "ops/elementwise.h"
#include "ops/layer_norm.h"
#include "tests/ops/harness.h"
#include "tests/ops/reference.h"
#include "tests/ops/weighted_total.h"

namespace cald::test {
namespace {

constexpr float kEps = 1e-5f;
const Dropout kDropout{0.25f, {99, 4, 17}};
const std::vector<std::int32_t> kSamples{3, 41};

template <class T>
Array<T> layer_norm(const Array<T>& x, const Array<T>& w, const Array<T>& b) {
  Array<T> y(x.shape);
  const T n(static_cast<double>(x.cols()));
  for (std::int64_t i = 0; i < x.rows(); ++i) {
    T mean(0.0), var(0.0);
    for (std::int64_t j = 0; j < x.cols(); ++j) mean += x.at(i, j);
    mean = mean / n;
    for (std::int64_t j = 0; j < x.cols(); ++j) var += (x.at(i, j) - mean) * (x.at(i, j) - mean);
    const T rstd = T(1.0) / sqrt(var / n + T(static_cast<double>(kEps)));
    for (std::int64_t j = 0; j < x.cols(); ++j) y.at(i, j) = (x.at(i, j) - mean) * rstd * w.at(0, j) + b.at(0, j);
  }
  return y;
}

std::vector<Input> inputs(const Shape& x, bool residual) {
  const Input vector{.shape = {x[-1]}, .strided = false};
  std::vector<Input> in{{x}, vector, vector};
  if (residual) in.push_back({x});
  return in;
}

TEST(LayerNorm, Alone) {
  for (const Shape& x :
       {Shape{0, 5}, Shape{1, 4}, Shape{3, 7}, Shape{2, 3, 16}, Shape{2, 2, 35}, Shape{40, 3}, Shape{2, 140}}) {
    const Case c{"layer norm " + x.str(), inputs(x, false)};
    for (const Case& each : {c, in_bf16(c, {0}, DType::f32)})
      check_op(
          each, []<class T>(const Inputs<T>& in) { return layer_norm(in[0], in[1], in[2]); },
          [](OpRun& run, const std::vector<Tensor>& in) {
            return run.tape.apply(LayerNorm{kEps}, in[0], Tensor{}, in[1], in[2], Tensor{});
          });
  }
}

TEST(LayerNorm, FarFromZero) {
  // The variance must not be lost beside a large mean.
  Input x{.shape = {3, 32}};
  x.values = normal_values(96, 5, 5);
  for (float& v : x.values) v += 300.0f;
  Case c{"layer norm far from zero", inputs(x.shape, false)};
  c.inputs[0] = x;
  check_op(
      c, []<class T>(const Inputs<T>& in) { return layer_norm(in[0], in[1], in[2]); },
      [](OpRun& run, const std::vector<Tensor>& in) {
        return run.tape.apply(LayerNorm{kEps}, in[0], Tensor{}, in[1], in[2], Tensor{});
      });
}

template <class T>
Array<T> with_residual(const Inputs<T>& in, const Dropout& d) {
  return layer_norm(sum(in[3], d.active() ? dropped(in[0], d, kSamples) : in[0]), in[1], in[2]);
}

TEST(LayerNorm, WithResidualAndDropout) {
  for (const Dropout& d : {Dropout{}, kDropout})
    for (const Shape& x : {Shape{2, 3, 6}, Shape{2, 1, 33}, Shape{2, 16}, Shape{2, 2, 132}}) {
      const Case c{"layer norm with residual " + x.str(), inputs(x, true)};
      const auto reference = [&]<class T>(const Inputs<T>& in) { return with_residual(in, d); };
      for (const Case& each : {c, in_bf16(c, {0}, DType::f32)})
        check_op(each, reference, [&](OpRun& run, const std::vector<Tensor>& in) {
          return run.tape.apply(LayerNorm{kEps, d}, in[0], in[3], in[1], in[2], run.ints({2}, kSamples));
        });
      // The ops it is made of, against the same reference.
      check_op({c.name + ", composed", c.inputs}, reference, [&](OpRun& run, const std::vector<Tensor>& in) {
        const Tensor dropped_x = run.tape.apply(DropoutOp{d}, in[0], run.ints({2}, kSamples));
        const Tensor s = run.tape.apply(Sum{}, in[3], dropped_x);
        return run.tape.apply(LayerNorm{kEps}, s, Tensor{}, in[1], in[2], Tensor{});
      });
    }
}

TEST(LayerNorm, DropoutWithoutResidual) {
  check_op(
      {"layer norm of dropout", inputs({2, 3, 10}, false)},
      []<class T>(const Inputs<T>& in) { return layer_norm(dropped(in[0], kDropout, kSamples), in[1], in[2]); },
      [](OpRun& run, const std::vector<Tensor>& in) {
        return run.tape.apply(LayerNorm{kEps, kDropout}, in[0], Tensor{}, in[1], in[2], run.ints({2}, kSamples));
      });
}

TEST(LayerNorm, DropsNonFiniteValuesToo) {
  Place place;
  Context& context = place;
  const Shape shape{2, 3, 10}, row{10};
  Array<float> all(shape);
  const std::vector<float> ones = all.data = std::vector<float>(60, 1.0f);
  const std::vector<float> kept = dropped(all, kDropout, kSamples).data;
  const auto run = [&](const std::vector<float>& x, float weight) {  // y, and the gradient of its sum
    Tape tape(context);
    const Tensor in = tape.input(tensor_of(context, shape, x)), samples = tensor_of(context, {2}, kSamples);
    const Tensor w = tensor_of(context, row, std::vector<float>(10, weight)), b = tensor_of(context, row, ones);
    const Tensor y = tape.apply(LayerNorm{kEps, kDropout}, in, Tensor{}, w, b, samples);
    tape.backward(tape.apply(WeightedTotal{tensor_of(context, shape, ones)}, y));
    return std::pair(read(y), read(tape.grad(in)));
  };
  std::vector<float> x = normal_values(60, 6, 0);
  const std::vector<float> y = run(x, 1.0f).first;
  for (std::size_t i = 0; i < x.size(); ++i)
    if (kept[i] == 0) x[i] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(run(x, 1.0f).first, y);
  const std::vector<float> dx = run(x, std::nanf("")).second;
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(std::isnan(dx[i]), kept[i] != 0) << i;
}

TEST(LayerNorm, ResidualIsTheInput) {
  for (const Dropout& d : {Dropout{}, kDropout})
    check_op(
        {"layer norm of x + dropout(x)", inputs({2, 3, 10}, false)},
        [&]<class T>(const Inputs<T>& in) {
          return layer_norm(sum(in[0], d.active() ? dropped(in[0], d, kSamples) : in[0]), in[1], in[2]);
        },
        [&](OpRun& run, const std::vector<Tensor>& in) {
          return run.tape.apply(LayerNorm{kEps, d}, in[0], in[0], in[1], in[2], run.ints({2}, kSamples));
        });
}

TEST(LayerNorm, EachGradientByItself) {
  for (std::size_t only = 0; only < 4; ++only) {
    Case c{"layer norm, only input " + std::to_string(only), inputs({2, 3, 6}, true)};
    for (std::size_t k = 0; k < 4; ++k) c.inputs[k].differentiated = k == only;
    check_op(
        c, []<class T>(const Inputs<T>& in) { return with_residual(in, kDropout); },
        [](OpRun& run, const std::vector<Tensor>& in) {
          return run.tape.apply(LayerNorm{kEps, kDropout}, in[0], in[3], in[1], in[2], run.ints({2}, kSamples));
        });
  }
}

TEST(LayerNorm, WithoutRecordingTheSumIsNotKept) {
  // y serves as the row's buffer then: the same bits must come out.
  Place place(2);
  Context& context = place;
  const auto drawn = [&](const Shape& s, std::uint64_t stream) {
    return tensor_of(context, s, normal_values(s.numel(), 8, stream));
  };
  const Tensor x = drawn({2, 70, 300}, 0), residual = drawn({2, 70, 300}, 1), w = drawn({300}, 2), b = drawn({300}, 3);
  const auto run = [&](bool recording) {
    Tape tape(context, recording);
    return tape.apply(LayerNorm{kEps}, tape.input(x), residual, w, b, Tensor{});
  };
  const std::int64_t before = place.memory().allocations();
  const Tensor y = run(false);
  EXPECT_EQ(place.memory().allocations() - before, 3) << "y, mean, rstd";
  const Tensor kept = run(true);
  EXPECT_TRUE(read(y) == read(kept));
}

TEST(LayerNorm, WithoutWeightAndBiasTheyAreOneAndZero) {
  Place place;
  Context& context = place;
  const Shape shape{5, 7};
  const Tensor x = tensor_of(context, shape, normal_values(35, 8, 0));
  const Tensor dy = tensor_of(context, shape, normal_values(35, 8, 1));
  const auto run = [&](const Tensor& weight, const Tensor& bias) {
    const Tensor y = context.like(x), dx = context.like(x), mean = context.empty({5}), rstd = context.empty({5});
    context.launch(LayerNormForward{x, {}, weight, bias, {}, {}, y, mean, rstd, kEps, {}});
    context.launch(LayerNormBackward{x, weight, mean, rstd, {}, dy, {dx, false}, {}, {}, {}, {}});
    return std::pair(read(y), read(dx));
  };
  const Tensor one = tensor_of(context, {7}, std::vector<float>(7, 1.0f)), zero = context.empty({7});
  context.launch(Fill{zero, 0.0f});
  EXPECT_EQ(run({}, {}), run(one, zero));
}

TEST(LayerNorm, NumberOfThreadsDoesNotChangeBits) {
  std::vector<float> first;
  for (int threads : backend().many_threads) {
    Place place(threads);
    Context& context = place;
    Tape tape(context);
    const auto input = [&](const Shape& s, std::uint64_t stream) {
      return tape.input(tensor_of(context, s, normal_values(s.numel(), 8, stream)));
    };
    const Tensor x = input({333, 130}, 1), w = input({130}, 2), b = input({130}, 3);
    const Tensor y = tape.apply(LayerNorm{kEps}, x, Tensor{}, w, b, Tensor{});
    const Tensor square = tape.apply(LayerNorm{kEps}, tape.view(y, {1, 333 * 130}), Tensor{}, input({333 * 130}, 4),
                                     input({333 * 130}, 5), Tensor{});
    tape.backward(tape.narrow(square, 1, 12345, 12346));
    std::vector<float> all = read(tape.grad(x));
    for (const Tensor* t : {&w, &b})
      for (float g : read(tape.grad(*t))) all.push_back(g);
    if (first.empty()) first = all;
    EXPECT_EQ(all, first) << threads << " threads";
  }
}

TEST(LayerNorm, NamesWhatDoesNotFit) {
  Place place;
  Context& context = place;
  Tape tape(context);
  const Tensor x = context.empty({2, 3}), w = context.empty({4}), b = context.empty({3});
  EXPECT_THROW(tape.apply(LayerNorm{kEps}, x, Tensor{}, w, b, Tensor{}), Error);
  EXPECT_THROW(tape.apply(LayerNorm{kEps, kDropout}, x, Tensor{}, b, b, w), Error);
}

}  // namespace
}  // namespace cald::test
