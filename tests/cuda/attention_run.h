// One forward and backward of attention on the (emulated) device.
#pragma once
#include "kernels/attention.h"
#include "tests/cuda/attention_reference.h"
#include "tests/cuda/support.h"

namespace cald::test {

/// What the launches are given beside the case.
struct Operands {
  explicit Operands(const AttentionCase& c)
      : q(normal_values(c.batch * c.queries * c.width(), 1)),
        k(normal_values(c.batch * c.keys * c.width(), 2)),
        v(normal_values(c.batch * c.keys * c.width(), 3)),
        dy(normal_values(c.batch * c.queries * c.width(), 4)) {}
  std::vector<float> q, k, v, dy;
};

struct Layout {
  std::int64_t gap = 0;  ///< elements between rows
  bool add = false;      ///< gradients are added to what stands there
  bool want_dq = true, want_dk = true, want_dv = true;
};

/// T: float or __nv_bfloat16, to which inputs are rounded.
template <class T = float>
AttentionValues<float> run_attention(const AttentionCase& c, const Operands& in, const Layout& layout = {}) {
  const Shape q_shape{c.batch, c.queries, c.width()}, k_shape{c.batch, c.keys, c.width()};
  const std::int64_t gap = layout.gap;
  const DeviceTensor<T> q(q_shape, in.q, gap), k(k_shape, in.k, gap), v(k_shape, in.v, gap);
  const DeviceTensor<T> dy(q_shape, in.dy, gap), y(q_shape, gap);
  const DeviceTensor<float> lse({c.batch, c.heads, c.queries}, 0);
  const DeviceTensor<std::int32_t> mask({c.batch, c.keys}, c.mask, c.mask.empty() ? 0 : gap);
  std::vector<std::int32_t> numbers;
  for (std::int64_t b = 0; b < c.batch; ++b) numbers.push_back(c.sample(b));
  const DeviceTensor<std::int32_t> samples({c.batch}, numbers);
  const TensorRef masked = c.mask.empty() ? TensorRef{} : mask.ref();
  const TensorRef sampled = c.dropout.active() ? samples.ref() : TensorRef{};
  const int heads = static_cast<int>(c.heads);

  Exec exec;
  exec.device = Device::cuda;
  run<Device::cuda>(exec, AttentionForward{q, k, v, masked, sampled, y, lse, heads, c.scale, c.causal, c.dropout});

  // Fresh memory is NaN: what is set must not have been read.
  auto gradient = [&](const Shape& shape) {
    return layout.add ? DeviceTensor<T>(shape, normal_values(shape.numel(), 9), gap) : DeviceTensor<T>(shape, gap);
  };
  const auto dq = gradient(q_shape), dk = gradient(k_shape), dv = gradient(k_shape);
  auto to = [&](const DeviceTensor<T>& t, bool wanted) { return wanted ? GradRef{t, layout.add} : GradRef{}; };
  AttentionBackward backward{q,
                             k,
                             v,
                             masked,
                             sampled,
                             y,
                             lse,
                             dy,
                             to(dq, layout.want_dq),
                             to(dk, layout.want_dk),
                             to(dv, layout.want_dv),
                             heads,
                             c.scale,
                             c.causal,
                             c.dropout};
  const Buffer<char> workspace(workspace_bytes<Device::cuda>(exec, backward));
  exec.workspace = workspace.get();
  run<Device::cuda>(exec, backward);
  check(cudaDeviceSynchronize());
  AttentionValues<float> r{y.read(), lse.read(), {}, {}, {}};
  if (layout.want_dq) r.dq = dq.read();
  if (layout.want_dk) r.dk = dk.read();
  if (layout.want_dv) r.dv = dv.read();
  return r;
}

/// Zeros and ones with holes and pads at both ends, of another length for each sample.
inline std::vector<std::int32_t> holes(std::int64_t batch, std::int64_t keys) {
  std::vector<std::int32_t> mask;
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t j = 0; j < keys; ++j) mask.push_back(j > b && j < keys - 7 * b && (j * 5 + b) % 11 > 1);
  return mask;
}

}  // namespace cald::test
