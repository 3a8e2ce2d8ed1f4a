// Attention on CUDA: the kernels in f32, and the choice of those in bf16.
#include "kernels/attention.h"

#include "kernels/cuda/attention_backward.cuh"
#include "kernels/cuda/attention_forward.cuh"
#include "kernels/cuda/attention_launch.h"

namespace cald {
namespace {

cudaStream_t stream_of(const Exec& exec) { return static_cast<cudaStream_t>(exec.stream); }

void forward_f32(const Exec& exec, const AttentionForward& a) {
  const auto operands = cuda::forward_operands<float>(a);
  cuda::with_head_size(a.name, operands.n.head_size, [&](auto size) {
    using Tiles = cuda::ForwardTiles<size>;
    const dim3 grid = cuda::attention_grid(a, a.q.dim(1), Tiles::kRows);
    cuda::check_launch(a.name,
                       cuda::launch(cuda::attention_forward_f32<size>,
                                    {grid, cuda::f32_tiles::kThreads, Tiles::kBytes, stream_of(exec)}, operands));
  });
}

/// The sums by query, dq, then dk and dv.
void backward_f32(const Exec& exec, const AttentionBackward& a) {
  const auto operands = cuda::backward_operands<float>(exec, a);
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
  return 2 * static_cast<std::size_t>(cuda::query_count(a)) * sizeof(float);
}

template <>
void run<Device::cuda>(Exec& exec, const AttentionForward& a) {
  if (a.q.numel() == 0) return;
  if (a.q.dtype == DType::bf16) return cuda::attention_forward_on_tensor_cores(exec, a);
  forward_f32(exec, a);
}

template <>
void run<Device::cuda>(Exec& exec, const AttentionBackward& a) {
  if (a.q.dim(0) == 0 || a.q.dim(2) == 0) return;
  if (a.q.dtype == DType::bf16) return cuda::attention_backward_on_tensor_cores(exec, a);
  backward_f32(exec, a);
}

}  // namespace cald
