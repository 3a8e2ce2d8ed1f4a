// Attention by its definition, over a number type: in double the wanted values, in float (with what is stored rounded
// to the kernel's dtype) what their tolerance follows from.
#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

#include "engine/base/rng.h"

namespace cald::test {

struct AttentionCase {
  std::int64_t batch, heads, queries, keys, head_size;
  std::vector<std::int32_t> mask{};  ///< (B, Sk); empty: all keys count
  bool causal = false;
  Dropout dropout{};
  float scale = 0.3f;

  std::int64_t width() const { return heads * head_size; }
  bool sees(std::int64_t b, std::int64_t i, std::int64_t j) const {
    return (mask.empty() || mask[static_cast<std::size_t>(b * keys + j)]) && (!causal || j <= i + keys - queries);
  }
  std::int32_t sample(std::int64_t b) const { return static_cast<std::int32_t>(40 + 3 * b); }
  bool keeps(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const {
    if (!dropout.active()) return true;
    const DropoutBits bits =
        dropout_bits(dropout.key, static_cast<std::uint32_t>(sample(b)), static_cast<std::uint32_t>(h * queries + i),
                     static_cast<std::uint32_t>(j / 4));
    return bits[static_cast<int>(j % 4)] < dropout.threshold();
  }
};

template <class T>
struct AttentionValues {
  std::vector<T> y, lse, dq, dk, dv;
};

struct Unrounded {
  template <class T>
  T operator()(T x) const {
    return x;
  }
};

/// Forward and, for the gradient dy of y, backward. q, dy (B, Sq, D); k, v (B, Sk, D), contiguous. `rounded` is applied
/// to probabilities, to gradients of scores, and to results other than lse.
template <class T, class Rounded = Unrounded>
AttentionValues<T> attention_reference(const AttentionCase& c, const std::vector<float>& q, const std::vector<float>& k,
                                       const std::vector<float>& v, const std::vector<float>& dy,
                                       const Rounded& rounded = {}) {
  AttentionValues<T> r;
  r.y.resize(q.size()), r.dq.resize(q.size()), r.dk.resize(k.size()), r.dv.resize(k.size());
  const T scale(c.scale), kept(c.dropout.active() ? c.dropout.scale() : 1.0f);
  const auto n = static_cast<std::size_t>(c.keys), d = static_cast<std::size_t>(c.head_size);
  for (std::int64_t b = 0; b < c.batch; ++b)
    for (std::int64_t h = 0; h < c.heads; ++h)
      for (std::int64_t i = 0; i < c.queries; ++i) {
        const auto at = [&](std::int64_t row, std::int64_t rows) {
          return static_cast<std::size_t>((b * rows + row) * c.width() + h * c.head_size);
        };
        const std::size_t row = at(i, c.queries);
        std::vector<T> p(n), dp(n);
        T top = -std::numeric_limits<T>::infinity(), sum(0), delta(0);
        for (std::size_t j = 0; j < n; ++j) {
          if (!c.sees(b, i, static_cast<std::int64_t>(j))) continue;
          const std::size_t key = at(static_cast<std::int64_t>(j), c.keys);
          for (std::size_t x = 0; x < d; ++x) p[j] += T(q[row + x]) * T(k[key + x]);
          top = std::max(top, p[j] *= scale);
        }
        for (std::size_t j = 0; j < n; ++j)
          sum += p[j] = c.sees(b, i, static_cast<std::int64_t>(j)) ? std::exp(p[j] - top) : T(0);
        r.lse.push_back(sum > 0 ? top + std::log(sum) : -std::numeric_limits<T>::infinity());
        if (!(sum > 0)) continue;
        for (std::size_t j = 0; j < n; ++j) {
          const std::size_t key = at(static_cast<std::int64_t>(j), c.keys);
          p[j] = rounded(p[j] / sum);
          const T keep = c.keeps(b, h, i, static_cast<std::int64_t>(j)) ? kept : T(0);
          for (std::size_t x = 0; x < d; ++x) {
            r.y[row + x] += p[j] * keep * T(v[key + x]);
            r.dv[key + x] += p[j] * keep * T(dy[row + x]);
            dp[j] += T(dy[row + x]) * T(v[key + x]) * keep;
          }
          delta += p[j] * dp[j];
        }
        for (std::size_t j = 0; j < n; ++j) {
          const std::size_t key = at(static_cast<std::int64_t>(j), c.keys);
          const T ds = rounded(p[j] * (dp[j] - delta)) * scale;
          for (std::size_t x = 0; x < d; ++x) {
            r.dq[row + x] += ds * T(k[key + x]);
            r.dk[key + x] += ds * T(q[row + x]);
          }
        }
      }
  for (std::vector<T>* values : {&r.y, &r.dq, &r.dk, &r.dv})
    for (T& x : *values) x = rounded(x);
  return r;
}

}  // namespace cald::test
