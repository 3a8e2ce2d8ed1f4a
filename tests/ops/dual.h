// Numbers that carry a derivative, and small dense arrays, for the references in the tests of ops.
#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

#include "engine/base/shape.h"

namespace cald::test {

/// v + d epsilon with epsilon^2 = 0: d is the derivative of v with respect to the seeded input, exact up to rounding in
/// T (forward-mode differentiation).
template <class T>
struct Dual {
  T v{}, d{};
  Dual() = default;
  Dual(T value, T derivative) : v(value), d(derivative) {}
  explicit Dual(double value) : v(static_cast<T>(value)) {}

  friend Dual operator+(Dual a, Dual b) { return {a.v + b.v, a.d + b.d}; }
  friend Dual operator-(Dual a, Dual b) { return {a.v - b.v, a.d - b.d}; }
  friend Dual operator*(Dual a, Dual b) { return {a.v * b.v, a.d * b.v + a.v * b.d}; }
  friend Dual operator/(Dual a, Dual b) {
    const T q = a.v / b.v;
    return {q, (a.d - q * b.d) / b.v};
  }
  friend Dual operator-(Dual a) { return {-a.v, -a.d}; }
  Dual& operator+=(Dual b) { return *this = *this + b; }
  Dual& operator*=(Dual b) { return *this = *this * b; }
  friend bool operator<(Dual a, Dual b) { return a.v < b.v; }
  friend bool operator>(Dual a, Dual b) { return a.v > b.v; }

  friend Dual exp(Dual a) {
    const T e = std::exp(a.v);
    return {e, e * a.d};
  }
  friend Dual log(Dual a) { return {std::log(a.v), a.d / a.v}; }
  friend Dual sqrt(Dual a) {
    const T s = std::sqrt(a.v);
    return {s, a.d / (T(2) * s)};
  }
  friend Dual tanh(Dual a) {
    const T t = std::tanh(a.v);
    return {t, (T(1) - t * t) * a.d};
  }
  friend Dual erf(Dual a) { return {std::erf(a.v), T(1.1283791670955126) * std::exp(-a.v * a.v) * a.d}; }
};

// So that a reference's exp(x) finds both kinds of number.
using std::erf;
using std::exp;
using std::log;
using std::sqrt;
using std::tanh;

/// A dense row-major array.
template <class T>
struct Array {
  Shape shape;
  std::vector<T> data;
  Array() = default;
  explicit Array(const Shape& s) : shape(s), data(static_cast<std::size_t>(s.numel()), T(0)) {}

  /// Element (i, j, ...); as many indices as dimensions.
  template <class... I>
  T& operator()(I... index) {
    return data[offset(index...)];
  }
  template <class... I>
  const T& operator()(I... index) const {
    return data[offset(index...)];
  }
  std::int64_t dim(int i) const { return shape[i]; }
  std::int64_t cols() const { return shape.rank() ? shape[-1] : 1; }
  std::int64_t rows() const { return cols() ? shape.numel() / cols() : 0; }
  /// Element j of row i, all dimensions but the last taken as one.
  T& at(std::int64_t i, std::int64_t j) { return data[static_cast<std::size_t>(i * cols() + j)]; }
  const T& at(std::int64_t i, std::int64_t j) const { return data[static_cast<std::size_t>(i * cols() + j)]; }

 private:
  template <class... I>
  std::size_t offset(I... index) const {
    std::int64_t o = 0;
    int d = 0;
    ((o = o * shape[d++] + static_cast<std::int64_t>(index)), ...);
    return static_cast<std::size_t>(o);
  }
};

}  // namespace cald::test
