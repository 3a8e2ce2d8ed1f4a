// AdamW and the gradients' norm on CUDA.
#include "kernels/optimizer.h"

#include <algorithm>
#include <cmath>

#include "kernels/cuda/check_launch.h"
#include "kernels/cuda/optimizer.cuh"
#include "kernels/elementwise.h"

namespace cald {
namespace {

/// Calls fn(table, blocks, blocks before them) for the slots, as many at a time as a kernel's argument holds.
template <class Fn>
void each_table(const std::vector<AdamWSlot>& slots, std::int64_t step, double correction1, const Fn& fn) {
  cuda::OptimizerSlots table{};
  int blocks = 0;
  std::int64_t before = 0;
  const auto flush = [&] {
    if (blocks > 0) fn(table, static_cast<unsigned>(blocks), before);
    before += blocks;
    table.count = blocks = 0;
  };
  for (const AdamWSlot& s : slots) {
    const std::int64_t n = s.value.numel();
    if (n == 0) continue;
    if (table.count == cuda::OptimizerSlots::kMost) flush();
    const double rate = static_cast<double>(s.learning_rate);
    table.slot[table.count++] = {s.value.f32(),
                                 s.m.data,
                                 s.v.data,
                                 s.grad.f32(),
                                 n,
                                 blocks,
                                 static_cast<float>(1.0 - rate * static_cast<double>(s.weight_decay)),
                                 static_cast<float>(rate / correction1)};
    cuda::OptimizerSlot& slot = table.slot[table.count - 1];
    slot.noise_key = s.noise_key(step);
    slot.vectors = true;
    for (const TensorRef* t : {&s.value, &s.grad, &s.m, &s.v})
      slot.vectors = slot.vectors && cuda::begins_with_vector(*t, cuda::kVector);
    if (s.moved.present) {
      slot.columns = static_cast<int>(s.value.cols());
      slot.moved = s.moved.as<std::int32_t>();
    }
    if (s.rows.present) {
      slot.chunk = std::max(1, cuda::kChunk / slot.columns) * slot.columns;
      slot.vectors = slot.vectors && slot.columns % cuda::kVector == 0;
      slot.rows = s.rows.as<std::int32_t>();
    }
    blocks += static_cast<int>((n + slot.chunk - 1) / slot.chunk);
  }
  flush();
}

std::int64_t chunks_of(const std::vector<AdamWSlot>& slots) {
  std::int64_t n = 0;
  for (const AdamWSlot& s : slots) n += (s.value.numel() + cuda::kChunk - 1) / cuda::kChunk;
  return n;
}

}  // namespace

template <>
void run<Device::cuda>(Exec& exec, const AdamW& a) {
  const double correction1 = 1.0 - std::pow(a.beta1, static_cast<double>(a.step));
  const double correction2 = 1.0 - std::pow(a.beta2, static_cast<double>(a.step));
  const cuda::AdamWFactors factors{static_cast<float>(a.beta1),
                                   static_cast<float>(a.beta2),
                                   static_cast<float>(1.0 - a.beta1),
                                   static_cast<float>(1.0 - a.beta2),
                                   a.eps,
                                   static_cast<float>(std::sqrt(correction2)),
                                   a.max_norm,
                                   a.max_norm > 0.0f ? a.norm.f32() : nullptr};
  each_table(*a.slots, a.step, correction1, [&](const cuda::OptimizerSlots& table, unsigned blocks, std::int64_t) {
    const bool bf16 = a.slots->front().has_bf16_moments();
    const auto kernel = bf16 ? cuda::adamw_update<cuda::bf16> : cuda::adamw_update<float>;
    cuda::check_launch(
        a.name, cuda::launch(kernel, {blocks, cuda::kOptimizerThreads, 0, static_cast<cudaStream_t>(exec.stream)},
                             table, factors));
  });
  for (const AdamWSlot& s : *a.slots)
    if (s.forward.present) run<Device::cuda>(exec, Copy{s.value, s.forward});
}

template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const GradientNorm& a) {
  return static_cast<std::size_t>(chunks_of(*a.slots)) * sizeof(cuda::TwoFloat);
}

template <>
void run<Device::cuda>(Exec& exec, const GradientNorm& a) {
  const auto stream = static_cast<cudaStream_t>(exec.stream);
  auto* sums = static_cast<cuda::TwoFloat*>(exec.workspace);
  each_table(*a.slots, 0, 1.0, [&](const cuda::OptimizerSlots& table, unsigned blocks, std::int64_t before) {
    cuda::check_launch(a.name, cuda::launch(cuda::gradient_squares, {blocks, cuda::kOptimizerThreads, 0, stream}, table,
                                            sums + before));
  });
  cuda::check_launch(a.name, cuda::launch(cuda::norm_of_sums, {1, cuda::kSumThreads, 0, stream}, sums,
                                          chunks_of(*a.slots), a.norm.f32()));
}

}  // namespace cald
