// The losses: values and gradients, left-out rows, sizes, large arguments, independence from the number of threads.
#include <gtest/gtest.h>

#include <cmath>

#include "ops/losses.h"
#include "tests/ops/harness.h"
#include "tests/ops/reference.h"

namespace cald::test {
namespace {

void check_cross_entropy(std::int64_t classes, const std::vector<std::int32_t>& labels, float scale = 1.0f) {
  const auto n = static_cast<std::int64_t>(labels.size());
  const Case c{"cross entropy, " + std::to_string(classes) + " classes", {{{n, classes}, true, true, scale}}};
  check_op(
      c,
      [&]<class T>(const Inputs<T>& in) {
        T sum(0.0);
        double count = 0;
        for (std::int64_t i = 0; i < n; ++i) {
          const std::int32_t label = labels[static_cast<std::size_t>(i)];
          if (label < 0) continue;
          sum += -log_softmax(in[0], i, T(1.0))[static_cast<std::size_t>(label)];
          ++count;
        }
        return scalar(count > 0 ? sum / T(count) : T(0.0));
      },
      [&](OpRun& run, const std::vector<Tensor>& in) {
        return run.tape.apply(CrossEntropy{run.ints({n}, labels)}, in[0]);
      });
}

TEST(CrossEntropy, ValuesAndGradients) {
  check_cross_entropy(2, {0, 1, 1, 0, 1});
  check_cross_entropy(2, {1});
  check_cross_entropy(1, {0, 0});
  check_cross_entropy(33, {5, 32, 0});
  check_cross_entropy(7, {6, 3, 2, 1}, 10.0f);
  check_cross_entropy(132, {131, 4, 0});
  check_cross_entropy(103, {99, 102, 1, 17, 64, 2, 55, 3, 8});
}

TEST(CrossEntropy, NegativeLabelsAreLeftOut) {
  check_cross_entropy(3, {-100, 2, -1, 0});
  check_cross_entropy(3, {-1, -1});
  check_cross_entropy(3, {});
  std::vector<std::int32_t> many;
  for (std::int32_t i = 0; i < 300; ++i) many.push_back(1 - i % 3);
  check_cross_entropy(2, many);
}

void check_kl(std::int64_t rows, std::int64_t classes, float temperature, float scale, float spread = 1.0f) {
  const Case c{"kl " + Shape{rows, classes}.str(), {{{rows, classes}, true, true, spread}}};
  const std::vector<float> teacher = normal_values(rows * classes, 8, 8, spread);
  check_op(
      c,
      [&]<class T>(const Inputs<T>& in) {
        const T factor = T(1.0) / T(double(temperature));
        Array<T> t(in[0].shape);
        for (std::size_t i = 0; i < teacher.size(); ++i) t.data[i] = T(double(teacher[i]));
        T sum(0.0);
        for (std::int64_t i = 0; i < rows; ++i) {
          const std::vector<T> p = log_softmax(t, i, factor), q = log_softmax(in[0], i, factor);
          for (std::size_t j = 0; j < p.size(); ++j) sum += exp(p[j]) * (p[j] - q[j]);
        }
        return scalar(rows > 0 ? sum * T(double(scale)) / T(double(rows)) : T(0.0));
      },
      [&](OpRun& run, const std::vector<Tensor>& in) {
        return run.tape.apply(KlDivergence{run.floats({rows, classes}, teacher), temperature, scale}, in[0]);
      });
}

TEST(Kl, ValuesAndGradients) {
  check_kl(5, 2, 2.0f, 4.0f);
  check_kl(1, 1, 1.0f, 1.0f);
  check_kl(4, 19, 2.0f, 1.0f);
  check_kl(3, 37, 0.5f, 0.25f, 5.0f);
  check_kl(2, 140, 2.0f, 4.0f);
  check_kl(0, 3, 1.0f, 1.0f);
}

/// f(x) of the squared error.
template <class T>
std::vector<T> features(const Array<T>& x, std::int64_t row, bool normalise) {
  std::vector<T> y;
  T mean(0.0), variance(0.0);
  const T n(static_cast<double>(x.cols()));
  for (std::int64_t j = 0; j < x.cols(); ++j) mean += x.at(row, j) / n;
  for (std::int64_t j = 0; j < x.cols(); ++j) variance += (x.at(row, j) - mean) * (x.at(row, j) - mean) / n;
  for (std::int64_t j = 0; j < x.cols(); ++j)
    y.push_back(normalise ? (x.at(row, j) - mean) / sqrt(variance + T(1e-5)) : x.at(row, j));
  return y;
}

void check_squared_error(const Shape& shape, bool normalise, const std::vector<std::int32_t>& mask = {}) {
  const std::vector<float> teacher = normal_values(shape.numel(), 8, 9);
  Shape rows = shape;
  if (shape.rank() == 3) rows = {shape[0], shape[1]};
  if (shape.rank() == 2) rows = {shape[0]};
  check_op(
      {"squared error " + shape.str() + (normalise ? ", normalised" : ""), {{shape}}},
      [&]<class T>(const Inputs<T>& in) {
        Array<T> t(shape);
        for (std::size_t i = 0; i < teacher.size(); ++i) t.data[i] = T(double(teacher[i]));
        T sum(0.0);
        double count = 0;
        for (std::int64_t i = 0; i < t.rows(); ++i) {
          if (!mask.empty() && mask[static_cast<std::size_t>(i)] == 0) continue;
          const std::vector<T> a = features(in[0], i, normalise), b = features(t, i, normalise);
          for (std::size_t j = 0; j < a.size(); ++j) sum += (a[j] - b[j]) * (a[j] - b[j]);
          count += static_cast<double>(t.cols());
        }
        return scalar(count > 0 ? sum / T(count) : T(0.0));
      },
      [&](OpRun& run, const std::vector<Tensor>& in) {
        const Tensor m = mask.empty() ? Tensor{} : run.ints(rows, mask);
        return run.tape.apply(SquaredError{run.floats(shape, teacher), m, normalise}, in[0]);
      });
}

TEST(SquaredError, ValuesAndGradients) {
  for (bool normalise : {false, true}) {
    check_squared_error({2, 3, 5}, normalise);
    check_squared_error({4, 33}, normalise);
    check_squared_error({1, 2}, normalise);
    check_squared_error({0, 3, 4}, normalise);
    check_squared_error({3, 2, 70}, normalise);
    check_squared_error({2, 140}, normalise);
  }
  check_squared_error({3, 1}, false);
}

TEST(SquaredError, MaskedRowsAreLeftOut) {
  for (bool normalise : {false, true}) {
    check_squared_error({2, 3, 5}, normalise, {1, 0, 1, 0, 0, 1});
    check_squared_error({3, 9}, normalise, {0, 1, 0});
    check_squared_error({2, 2, 4}, normalise, {0, 0, 0, 0});
  }
}

TEST(SquaredError, WhatStandsInMaskedRowsDoesNotMatter) {
  Place place;
  Context& context = place;
  Tape tape(context);
  OpRun run{tape};
  const float nan = std::nanf("");
  const Tensor x = tape.input(run.floats({3, 2}, {1, 2, nan, nan, 3, 4}));
  const Tensor loss =
      tape.apply(SquaredError{run.floats({3, 2}, {0, 2, nan, 7, 3, 7}), run.ints({3}, {1, 0, 1}), false}, x);
  EXPECT_EQ(read_one(loss), 2.5f);
  tape.backward(loss);
  EXPECT_EQ(read(tape.grad(x)), (std::vector<float>{0.5f, 0, 0, 0, 0, -1.5f}));
}

/// A student that is a part of each sample's tokens: rows at two strides.
TEST(SquaredError, RowsAtTwoStrides) {
  Place place(2);
  Context& context = place;
  Tape tape(context);
  OpRun run{tape};
  const float nan = std::nanf("");
  const Tensor wide = run.floats({2, 3, 2}, {1, 2, 3, 4, nan, nan, 5, 6, 7, 8, nan, nan});
  const Tensor x = wide.narrow(1, 0, 2);
  const Tensor loss = tape.apply(SquaredError{run.floats({2, 2, 2}, std::vector<float>(8, 0.0f)), {}, false}, x);
  EXPECT_EQ(read_one(loss), 25.5f);
}

/// The first of these rows begins where a vector may, the others do not.
TEST(SquaredError, RowsBeginAnywhere) {
  Place place;
  Context& context = place;
  Tape tape(context);
  OpRun run{tape};
  const Tensor x = tape.input(run.floats({3, 5}, std::vector<float>(15, 2.0f)).narrow(1, 0, 4));
  const Tensor loss = tape.apply(SquaredError{run.floats({3, 4}, std::vector<float>(12, 5.0f)), {}, false}, x);
  EXPECT_EQ(read_one(loss), 9.0f);
  tape.backward(loss);
  EXPECT_EQ(read(tape.grad(x)), std::vector<float>(12, -0.5f));
}

TEST(Losses, NaNsReachTheLoss) {
  Place place;
  Context& context = place;
  Tape tape(context, false);
  OpRun run{tape};
  const Tensor bad = run.floats({2, 3}, {1, 2, 3, 4, std::nanf(""), 6}), good = run.floats({2, 3}, {1, 2, 3, 4, 5, 6});
  EXPECT_TRUE(std::isnan(read_one(tape.apply(CrossEntropy{run.ints({2}, {0, 0})}, bad))));
  EXPECT_TRUE(std::isnan(read_one(tape.apply(KlDivergence{good, 1, 1}, bad))));
  EXPECT_TRUE(std::isnan(read_one(tape.apply(SquaredError{good, {}, false}, bad))));
  EXPECT_TRUE(std::isnan(read_one(tape.apply(SquaredError{good, {}, true}, bad))));
}

TEST(Losses, TheNumberOfThreadsDoesNotMatter) {
  const std::int64_t rows = 700, cols = 301;
  const std::vector<float> student = normal_values(rows * cols, 1, 1), teacher = normal_values(rows * cols, 1, 2);
  std::vector<std::int32_t> labels, mask;
  for (std::int32_t i = 0; i < rows; ++i) {
    labels.push_back(i % 7 == 0 ? -1 : i % 301);
    mask.push_back(i % 5 != 0);
  }
  std::vector<std::vector<float>> first;
  for (int threads : backend().many_threads) {
    std::vector<std::vector<float>> got;
    for (int kind = 0; kind < 4; ++kind) {
      Place place(threads);
      Context& context = place;
      Tape tape(context);
      OpRun run{tape};
      const Tensor x = tape.input(run.floats({rows, cols}, student)), t = run.floats({rows, cols}, teacher);
      const Tensor loss = kind == 0   ? tape.apply(CrossEntropy{run.ints({rows}, labels)}, x)
                          : kind == 1 ? tape.apply(KlDivergence{t, 2, 4}, x)
                                      : tape.apply(SquaredError{t, run.ints({rows}, mask), kind == 3}, x);
      got.push_back(read(loss));
      tape.backward(loss);
      got.push_back(read(tape.grad(x)));
    }
    if (first.empty()) first = got;
    EXPECT_EQ(got, first) << threads << " threads";
  }
}

}  // namespace
}  // namespace cald::test
