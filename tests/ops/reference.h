// Pieces of references that several ops' tests share.
#pragma once
#include <vector>

#include "engine/base/rng.h"
#include "kernels/elementwise.h"
#include "tests/ops/dual.h"
#include "tests/ops/harness.h"

namespace cald::test {

template <class T>
Array<T> sum(const Array<T>& a, const Array<T>& b) {
  Array<T> y = a;
  for (std::size_t i = 0; i < y.data.size(); ++i) y.data[i] = a.data[i] + b.data[i];
  return y;
}

/// Dropout straight from dropout_bits(), one element at a time. x is (B, S, F) or (B, F).
template <class T>
Array<T> dropped(const Array<T>& x, const Dropout& d, const std::vector<std::int32_t>& samples) {
  Array<T> y = x;
  const std::int64_t length = x.shape.rank() == 3 ? x.dim(1) : 1;
  for (std::int64_t row = 0; row < x.rows(); ++row)
    for (std::int64_t j = 0; j < x.cols(); ++j) {
      const auto sample = static_cast<std::uint32_t>(samples[static_cast<std::size_t>(row / length)]);
      const auto position = static_cast<std::uint32_t>(row % length);
      const DropoutBits bits = dropout_bits(d.key, sample, position, static_cast<std::uint32_t>(j / 4));
      const bool kept = bits[static_cast<int>(j % 4)] < d.threshold();
      y.at(row, j) = kept ? x.at(row, j) * T(65536.0 / d.threshold()) : T(0.0);
    }
  return y;
}

template <class T>
T activation(Activation f, T x) {
  const T one(1.0), half(0.5);
  switch (f) {
    case Activation::gelu:
      return half * x * (one + erf(x * T(0.70710678118654752)));
    case Activation::gelu_tanh:
      return half * x * (one + tanh(T(0.79788456080286536) * (x + T(0.044715) * x * x * x)));
    case Activation::relu:
      return x > T(0.0) ? x : T(0.0);
    case Activation::tanh:
      return tanh(x);
    case Activation::silu:
      return x / (one + exp(-x));
  }
  return x;
}

/// x W^T, and b if it is there: in = {x, W, b}.
template <class T>
Array<T> linear(const Inputs<T>& in) {
  const auto &x = in[0], &w = in[1];
  Shape out = x.shape;
  out[-1] = w.dim(0);
  Array<T> y(out);
  for (std::int64_t i = 0; i < y.rows(); ++i)
    for (std::int64_t j = 0; j < y.cols(); ++j) {
      T sum(0);
      for (std::int64_t k = 0; k < x.cols(); ++k) sum += x.at(i, k) * w.at(j, k);
      y.at(i, j) = in.size() == 3 ? sum + in[2].at(0, j) : sum;
    }
  return y;
}

/// Of factor times a row of x.
template <class T>
std::vector<T> log_softmax(const Array<T>& x, std::int64_t row, const T& factor) {
  std::vector<T> y;
  T top = x.at(row, 0) * factor, sum(0.0);
  for (std::int64_t j = 0; j < x.cols(); ++j) {
    y.push_back(x.at(row, j) * factor);
    if (y.back() > top) top = y.back();
  }
  for (const T& v : y) sum += exp(v - top);
  for (T& v : y) v = v - top - log(sum);
  return y;
}

template <class T>
Array<T> scalar(const T& v) {
  Array<T> y({1});
  y.data[0] = v;
  return y;
}

}  // namespace cald::test
