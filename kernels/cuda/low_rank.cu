// The low-rank projection in f32 on CUDA.
#include "kernels/low_rank.h"

#include "kernels/cuda/check_launch.h"
#include "kernels/cuda/low_rank.cuh"

namespace cald {
namespace {

template <class T>
cuda::Rows<T> rows_of(const TensorRef& t, bool add = false) {
  if (!t.present) return {};
  const int rank = t.shape.rank();
  bool vectors = reinterpret_cast<std::uintptr_t>(t.data) % 16 == 0 && t.cols() % 4 == 0;
  for (int i = 0; i + 1 < rank; ++i) vectors = vectors && t.strides[i] % 4 == 0;
  return {t.as<T>(), t.strides[-2], vectors, add};
}
template <class T>
cuda::SampleRows<T> sample_rows(const TensorRef& t, bool add = false) {
  return {rows_of<T>(t, add), t.present ? t.strides[0] : 0};
}

template <class Args>
cuda::LowRankOperands operands_of(const Args& a) {
  cuda::LowRankOperands o{};
  o.x = sample_rows<const float>(a.x), o.e = rows_of<const float>(a.e);
  o.ranks = {a.rank.template as<std::int32_t>(), a.rank.strides[0], a.rank.strides[1],
             a.lengths.template as<std::int32_t>(), a.lengths.strides[0]};
  o.batch = static_cast<int>(a.x.dim(0)), o.tokens = static_cast<int>(a.x.dim(1));
  o.width = static_cast<int>(a.x.dim(2)), o.slots = static_cast<int>(a.e.dim(1));
  o.positions = static_cast<int>(a.e.dim(0));
  return o;
}

/// Starts `kernel` over tiles of (rows, columns) unless there are none.
void start(const Exec& exec, const char* name, void (*kernel)(cuda::LowRankOperands), const cuda::LowRankOperands& o,
           int columns, int rows, int tile, int samples) {
  if (columns == 0 || rows == 0 || samples == 0) return;
  const dim3 grid(static_cast<unsigned>((columns + tile - 1) / tile), static_cast<unsigned>((rows + tile - 1) / tile),
                  static_cast<unsigned>(samples));
  cuda::check_launch(
      name, cuda::launch(kernel, {grid, cuda::f32_tiles::kThreads, 0, static_cast<cudaStream_t>(exec.stream)}, o));
}

}  // namespace

/// The table of tokens by rank.
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const LowRankBackward& a) {
  return a.de ? static_cast<std::size_t>(a.x.dim(0) * a.e.dim(0)) * sizeof(std::int32_t) : 0;
}

template <>
void run<Device::cuda>(Exec& exec, const LowRankForward& a) {
  cuda::LowRankOperands o = operands_of(a);
  o.y = sample_rows<float>(a.y);
  start(exec, a.name, cuda::low_rank_forward_f32, o, o.width, o.slots, 64, o.batch);
}

template <>
void run<Device::cuda>(Exec& exec, const LowRankBackward& a) {
  cuda::LowRankOperands o = operands_of(a);
  o.dy = sample_rows<const float>(a.dy), o.dx = sample_rows<float>(a.dx.to, a.dx.add);
  o.de = rows_of<float>(a.de.to, a.de.add), o.token = static_cast<std::int32_t*>(exec.workspace);
  if (a.dx) start(exec, a.name, cuda::low_rank_backward_x_f32, o, o.width, o.tokens, 64, o.batch);
  if (!a.de) return;
  if (o.positions) start(exec, a.name, cuda::tokens_by_rank, o, 1, o.batch, 1, 1);
  start(exec, a.name, cuda::low_rank_backward_e_f32, o, o.slots, o.positions, 32, 1);
}

}  // namespace cald
