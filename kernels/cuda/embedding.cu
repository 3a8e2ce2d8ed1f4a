// Embedding look-up and its deterministic scatter on CUDA.
#include "kernels/embedding.h"

#include "kernels/cuda/check_launch.h"
#include "kernels/cuda/embedding.cuh"
#include "kernels/elementwise.h"

namespace cald {
namespace {

cuda::Ids ids_of(const TensorRef& t) {
  if (!t.present) return {};
  return {t.as<std::int32_t>(), t.strides[0], t.strides[1], static_cast<int>(t.dim(1))};
}
cuda::Table table_of(const TensorRef& t) {
  if (!t.present) return {};
  return {t.f32(), t.strides[0]};
}

}  // namespace

template <>
void run<Device::cuda>(Exec& exec, const EmbeddingForward& a) {
  if (a.y.numel() == 0) return;
  cuda::launch_rows(
      exec, a.name, cuda::embedding_sum, a.y.rows(),
      cuda::EmbeddingSum{ids_of(a.word_ids), ids_of(a.position_ids), ids_of(a.type_ids), table_of(a.word),
                         table_of(a.position), table_of(a.type), cuda::tensor_rows<float>(a.y),
                         static_cast<int>(a.y.rows()), cuda::row_layout(a.y.cols(), a.y, a.word, a.position, a.type)});
}

/// The runs and the tokens in their order.
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const EmbeddingBackward& a) {
  return a.dtable ? static_cast<std::size_t>(a.ids.numel()) * (sizeof(cuda::Run) + sizeof(int)) : 0;
}

template <>
void run<Device::cuda>(Exec& exec, const EmbeddingBackward& a) {
  if (!a.dtable) return;
  const auto stream = static_cast<cudaStream_t>(exec.stream);
  const auto count = static_cast<unsigned>(a.ids.numel());
  if (a.rows.present)
    cuda::check_launch(a.name,
                       cudaMemsetAsync(a.rows.data, 0xff, static_cast<std::size_t>(a.rows.numel()) * 4, stream));
  else if (!a.dtable.add)
    run<Device::cuda>(exec, Fill{a.dtable.to, 0.0f});
  if (count == 0) return;
  auto* const runs = static_cast<cuda::Run*>(exec.workspace);
  int* const order = reinterpret_cast<int*>(runs + count);
  cuda::check_launch(a.name, cuda::launch(cuda::sort_tokens, {(count + 31) / 32, 32 * cuda::kSortWarps, 0, stream},
                                          ids_of(a.ids), static_cast<int>(count), a.frozen, order, runs,
                                          a.rows.present ? a.rows.as<std::int32_t>() : nullptr));
  if (a.dy.cols() == 0) return;
  const cuda::EmbeddingScatter scatter{order,
                                       runs,
                                       a.dy.f32(),
                                       a.dy.strides[0],
                                       a.dy.strides[1],
                                       static_cast<int>(a.ids.dim(1)),
                                       static_cast<int>(a.dy.cols()),
                                       table_of(a.dtable.to),
                                       a.dtable.add};
  const dim3 grid(count, static_cast<unsigned>((scatter.features + cuda::kScatterThreads - 1) / cuda::kScatterThreads));
  cuda::check_launch(a.name, cuda::launch(cuda::embedding_scatter, {grid, cuda::kScatterThreads, 0, stream}, scatter));
}

}  // namespace cald
