// Attention in f32 on CUDA.
#include "kernels/attention.h"

#include "kernels/cuda/attention_backward.cuh"
#include "kernels/cuda/attention_forward.cuh"
#include "kernels/cuda/attention_launch.h"

namespace cald {
namespace {

cudaStream_t stream_of(const Exec& exec) { return static_cast<cudaStream_t>(exec.stream); }

void forward_f32(const Exec& exec, const AttentionForward& a) {
  const cuda::AttentionForwardOperands operands{cuda::head_rows<const float>(a.q, a.heads),
                                                cuda::head_rows<const float>(a.k, a.heads),
                                                cuda::head_rows<const float>(a.v, a.heads),
                                                cuda::head_rows<float>(a.y, a.heads),
                                                a.lse.f32(),
                                                cuda::attention_sizes(a),
                                                cuda::key_mask(a.mask),
                                                cuda::probability_dropout(a)};
  cuda::with_head_size(a.name, operands.n.head_size, [&](auto size) {
    using Tiles = cuda::ForwardTiles<size>;
    const dim3 grid = cuda::attention_grid(a, a.q.dim(1), Tiles::kRows);
    cuda::check_launch(a.name,
                       cuda::launch(cuda::attention_forward_f32<size>,
                                    {grid, cuda::f32_tiles::kThreads, Tiles::kBytes, stream_of(exec)}, operands));
  });
}

std::size_t statistics(const AttentionBackward& a) {
  return static_cast<std::size_t>(a.q.dim(0) * a.heads * a.q.dim(1));
}

cuda::AttentionBackwardOperands backward_operands(const Exec& exec, const AttentionBackward& a) {
  auto* inverse = static_cast<float*>(exec.workspace);
  return {cuda::head_rows<const float>(a.q, a.heads),
          cuda::head_rows<const float>(a.k, a.heads),
          cuda::head_rows<const float>(a.v, a.heads),
          cuda::head_rows<const float>(a.dy, a.heads),
          cuda::head_rows<float>(a.dq, a.heads),
          cuda::head_rows<float>(a.dk, a.heads),
          cuda::head_rows<float>(a.dv, a.heads),
          a.lse.f32(),
          inverse,
          inverse + statistics(a),
          cuda::attention_sizes(a),
          cuda::key_mask(a.mask),
          cuda::probability_dropout(a)};
}

/// The sums by query, dq, then dk and dv.
void backward_f32(const Exec& exec, const AttentionBackward& a) {
  const cuda::AttentionBackwardOperands operands = backward_operands(exec, a);
  cuda::with_head_size(a.name, operands.n.head_size, [&](auto size) {
    using Tiles = cuda::BackwardTiles<size>;
    const auto start = [&](auto kernel, std::int64_t rows) {
      if (rows == 0) return;
      const dim3 grid = cuda::attention_grid(a, rows, Tiles::kRows);
      cuda::check_launch(
          a.name, cuda::launch(kernel, {grid, cuda::f32_tiles::kThreads, Tiles::kBytes, stream_of(exec)}, operands));
    };
    start(cuda::attention_sums_f32<size>, a.q.dim(1));
    if (a.dq) start(cuda::attention_backward_f32<size, false>, a.q.dim(1));
    if (a.dk || a.dv) start(cuda::attention_backward_f32<size, true>, a.k.dim(1));
  });
}

}  // namespace

/// Two numbers for every query.
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const AttentionBackward& a) {
  return 2 * statistics(a) * sizeof(float);
}

template <>
void run<Device::cuda>(Exec& exec, const AttentionForward& a) {
  if (a.q.numel() == 0) return;
  forward_f32(exec, a);
}

template <>
void run<Device::cuda>(Exec& exec, const AttentionBackward& a) {
  if (a.q.dim(0) == 0 || a.q.dim(2) == 0) return;
  backward_f32(exec, a);
}

}  // namespace cald
