// The low-rank projection on the (emulated) device, and by its definition over a number type.
#pragma once
#include <cmath>

#include "kernels/low_rank.h"
#include "tests/cuda/support.h"

namespace cald::test {

struct LowRankCase {
  std::int64_t batch, tokens, width, slots, positions;
  std::vector<std::int32_t> rank, lengths;
};

/// Sample b has pads[b] pads, on the left where b is odd, else on the right.
inline LowRankCase padded_case(std::int64_t tokens, std::int64_t width, std::int64_t slots,
                               const std::vector<std::int32_t>& pads) {
  LowRankCase c{static_cast<std::int64_t>(pads.size()), tokens, width, slots, tokens + 2, {}, {}};
  for (std::size_t b = 0; b < pads.size(); ++b) {
    const auto n = static_cast<std::int32_t>(tokens) - pads[b], first = b % 2 ? pads[b] : 0;
    for (std::int32_t s = 0; s < static_cast<std::int32_t>(tokens); ++s)
      c.rank.push_back(s >= first && s < first + n ? s - first : -1);
    c.lengths.push_back(n);
  }
  return c;
}

template <class T>
struct LowRankValues {
  std::vector<T> y, dx, de;
};

template <class T>
LowRankValues<T> low_rank_reference(const LowRankCase& c, const std::vector<float>& x, const std::vector<float>& e,
                                    const std::vector<float>& dy) {
  LowRankValues<T> r;
  r.y.resize(dy.size()), r.dx.resize(x.size()), r.de.resize(e.size());
  const auto at = [](std::int64_t i, std::int64_t n, std::int64_t j) { return static_cast<std::size_t>(i * n + j); };
  for (std::int64_t b = 0; b < c.batch; ++b)
    for (std::int64_t s = 0; s < c.tokens; ++s) {
      const std::int32_t rank = c.rank[at(b, c.tokens, s)];
      if (rank < 0) continue;
      const T scale = T(1) / std::sqrt(T(c.lengths[static_cast<std::size_t>(b)]));
      for (std::int64_t j = 0; j < c.slots; ++j) {
        const std::size_t slot = at(rank, c.slots, j);
        for (std::int64_t d = 0; d < c.width; ++d) {
          const std::size_t in = at(b * c.tokens + s, c.width, d), out = at(b * c.slots + j, c.width, d);
          r.y[out] += T(e[slot]) * T(x[in]) * scale;
          r.dx[in] += T(e[slot]) * T(dy[out]) * scale;
          r.de[slot] += T(x[in]) * T(dy[out]) * scale;
        }
      }
    }
  return r;
}

struct LowRankInputs {
  explicit LowRankInputs(const LowRankCase& c, std::uint64_t draw = 0)
      : x(normal_values(c.batch * c.tokens * c.width, 10 * draw + 1)),
        e(normal_values(c.positions * c.slots, 10 * draw + 2)),
        dy(normal_values(c.batch * c.slots * c.width, 10 * draw + 3)) {}
  std::vector<float> x, e, dy;
};

/// T: of x and dy, and so of y and dx.
template <class T = float>
LowRankValues<float> run_low_rank(const LowRankCase& c, const LowRankInputs& in, std::int64_t gap = 0,
                                  bool add = false) {
  const Shape x_shape{c.batch, c.tokens, c.width}, y_shape{c.batch, c.slots, c.width}, e_shape{c.positions, c.slots};
  std::vector<float> unread = in.x;  // the rows of pads are not to be read
  for (std::size_t i = 0; i < unread.size(); ++i)
    if (c.rank[i / static_cast<std::size_t>(c.width)] < 0) unread[i] = std::numeric_limits<float>::quiet_NaN();
  const DeviceTensor<T> x(x_shape, unread, gap), dy(y_shape, in.dy, gap), y(y_shape, gap);
  const DeviceTensor<float> e(e_shape, in.e, gap);
  const DeviceTensor<std::int32_t> rank({c.batch, c.tokens}, c.rank, gap), lengths({c.batch}, c.lengths);
  const auto gradient = [&]<class G>(const Shape& shape, G) {
    return add ? DeviceTensor<G>(shape, normal_values(shape.numel(), 9), gap) : DeviceTensor<G>(shape, gap);
  };
  const auto dx = gradient(x_shape, T()), de = gradient(e_shape, 0.0f);
  Exec exec;
  exec.device = Device::cuda;
  run<Device::cuda>(exec, LowRankForward{x, e, rank, lengths, y});
  const LowRankBackward backward{x, e, rank, lengths, dy, {dx, add}, {de, add}};
  const Buffer<char> workspace(workspace_bytes<Device::cuda>(exec, backward));
  // Fresh memory reads as -1, which is a token's absence; a token of this number and a sum of 3e38 are none.
  check(cudaMemset(workspace.get(), 0x7f, workspace_bytes<Device::cuda>(exec, backward)));
  exec.workspace = workspace.get();
  run<Device::cuda>(exec, backward);
  check(cudaDeviceSynchronize());
  return {y.read(), dx.read(), de.read()};
}

}  // namespace cald::test
