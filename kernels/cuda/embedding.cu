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
  const cuda::EmbeddingSum sum{ids_of(a.word_ids),
                               ids_of(a.position_ids),
                               ids_of(a.type_ids),
                               table_of(a.word),
                               table_of(a.position),
                               table_of(a.type),
                               a.y.f32(),
                               a.y.strides[0],
                               a.y.strides[1],
                               static_cast<int>(a.y.cols())};
  const dim3 grid(static_cast<unsigned>(a.word_ids.numel()));
  cuda::check_launch(a.name,
                     cuda::launch(cuda::embedding_sum, {grid, 128, 0, static_cast<cudaStream_t>(exec.stream)}, sum));
}

template <>
void run<Device::cuda>(Exec& exec, const EmbeddingBackward& a) {
  if (!a.dtable) return;
  const auto stream = static_cast<cudaStream_t>(exec.stream);
  const bool by_rows = a.rows.present;
  const int count = static_cast<int>(a.ids.numel());
  if (by_rows) {
    constexpr unsigned kThreads = 128;
    cuda::check_launch(a.name,
                       cudaMemsetAsync(a.rows.data, 0xff, static_cast<std::size_t>(a.rows.numel()) * 4, stream));
    if (count > 0)
      cuda::check_launch(a.name,
                         cuda::launch(cuda::note_first_tokens,
                                      {(static_cast<unsigned>(count) + kThreads - 1) / kThreads, kThreads, 0, stream},
                                      ids_of(a.ids), count, a.frozen, a.rows.as<unsigned>()));
  } else if (!a.dtable.add) {
    run<Device::cuda>(exec, Fill{a.dtable.to, 0.0f});
  }
  if (a.dy.numel() == 0) return;
  const cuda::EmbeddingScatter scatter{ids_of(a.ids),
                                       a.dy.f32(),
                                       a.dy.strides[0],
                                       a.dy.strides[1],
                                       table_of(a.dtable.to),
                                       count,
                                       static_cast<int>(a.dy.cols()),
                                       a.frozen,
                                       by_rows};
  const dim3 grid(static_cast<unsigned>(scatter.count),
                  static_cast<unsigned>((scatter.features + cuda::kScatterThreads - 1) / cuda::kScatterThreads));
  cuda::check_launch(a.name, cuda::launch(cuda::embedding_scatter, {grid, cuda::kScatterThreads, 0, stream}, scatter));
}

}  // namespace cald
