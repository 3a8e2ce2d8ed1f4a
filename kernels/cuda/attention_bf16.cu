// Attention in bf16 on CUDA's tensor cores.
#include "kernels/cuda/attention_backward_bf16.cuh"
#include "kernels/cuda/attention_launch.h"

namespace cald::cuda {

void attention_forward_on_tensor_cores(const Exec& exec, const AttentionForward& a) {
  const auto operands = forward_operands<bf16>(a);
  const dim3 grid = attention_grid(a, a.q.dim(1), bf16_tiles::kRows);
  with_head_size(a.name, operands.n.head_size, [&](auto size) {
    check_launch(a.name, launch(attention_forward_bf16<size>,
                                {grid, bf16_tiles::kThreads, ForwardTilesBf16<size>::kBytes,
                                 static_cast<cudaStream_t>(exec.stream)},
                                operands));
  });
}

/// delta, dq, then dk and dv.
void attention_backward_on_tensor_cores(const Exec& exec, const AttentionBackward& a) {
  const auto operands = backward_operands<bf16>(exec, a);
  with_head_size(a.name, operands.n.head_size, [&](auto size) {
    const auto start = [&](auto kernel, std::int64_t rows, int tile, std::size_t shared) {
      if (rows == 0) return;
      check_launch(a.name, launch(kernel,
                                  {attention_grid(a, rows, tile), bf16_tiles::kThreads, shared,
                                   static_cast<cudaStream_t>(exec.stream)},
                                  operands));
    };
    constexpr std::size_t kBytes = BackwardTilesBf16<size>::kBytes;
    constexpr int kRows = bf16_tiles::kRows;
    start(attention_delta_bf16, a.q.dim(1), bf16_tiles::kThreads / 8, 0);
    if (a.dq) start(attention_backward_bf16<size, Gradients::dq>, a.q.dim(1), kRows, kBytes);
    if constexpr (size <= 128) {
      if (a.dk || a.dv) start(attention_backward_bf16<size, Gradients::dk_dv>, a.k.dim(1), kRows, kBytes);
    } else {
      if (a.dk) start(attention_backward_bf16<size, Gradients::dk>, a.k.dim(1), kRows, kBytes);
      if (a.dv) start(attention_backward_bf16<size, Gradients::dv>, a.k.dim(1), kRows, kBytes);
    }
  });
}

}  // namespace cald::cuda
