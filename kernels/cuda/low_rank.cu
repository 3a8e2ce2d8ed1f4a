// The low-rank projection on CUDA.
#include "kernels/low_rank.h"

#include <algorithm>

#include "kernels/cuda/check_launch.h"
#include "kernels/cuda/column_sum.cuh"
#include "kernels/cuda/low_rank_bf16.cuh"

namespace cald {
namespace {

template <class T>
cuda::Rows<T> rows_of(const TensorRef& t, bool add = false) {
  if (!t.present) return {};
  const int rank = t.shape.rank();
  constexpr int kVector = 16 / sizeof(T);
  bool vectors = reinterpret_cast<std::uintptr_t>(t.data) % 16 == 0 && t.cols() % kVector == 0;
  for (int i = 0; i + 1 < rank; ++i) vectors = vectors && t.strides[i] % kVector == 0;
  return {t.as<T>(), t.strides[-2], vectors, add};
}
template <class T>
cuda::SampleRows<T> sample_rows(const TensorRef& t, bool add = false) {
  return {rows_of<T>(t, add), t.present ? t.strides[0] : 0};
}

template <class T, class Args>
cuda::LowRankOperands<T> operands_of(const Args& a) {
  cuda::LowRankOperands<T> o{};
  o.x = sample_rows<const T>(a.x), o.e = rows_of<const float>(a.e);
  o.ranks = {a.rank.template as<std::int32_t>(), a.rank.strides[0], a.rank.strides[1],
             a.lengths.template as<std::int32_t>(), a.lengths.strides[0]};
  o.batch = static_cast<int>(a.x.dim(0)), o.tokens = static_cast<int>(a.x.dim(1));
  o.width = static_cast<int>(a.x.dim(2)), o.slots = static_cast<int>(a.e.dim(1));
  o.positions = static_cast<int>(a.e.dim(0));
  return o;
}

/// The kernels for operands of type T, with their threads, the tile of de, and the most blocks that de's sum is cut
/// for. P x k alone makes few tiles (128 x 128 is 16 in f32 and 4 in bf16), and a GPU has 108 to 132 multiprocessors:
/// in f32 each gets the two blocks that its registers hold. In bf16, whose tiles are four times as large, each gets
/// one: of the 16 parts for MiniLM in f32 the sums are 4 % of the bytes, of the 32 in bf16 a block's are already 16 KB,
/// written and read, against 98 KB of operands (49 KB for RoBERTa-base at batch 8), and more parts would double that
/// share. The number depends on shapes alone, so that every GPU gives the same bits.
template <class T>
struct Kernels {
  static constexpr auto forward = cuda::low_rank_forward_f32;
  static constexpr auto backward_x = cuda::low_rank_backward_x_f32;
  static constexpr auto backward_e = cuda::low_rank_backward_e_f32;
  static constexpr int kThreads = cuda::f32_tiles::kThreads, kTileOfE = 32, kBlocksOfE = 256;
};
template <>
struct Kernels<cuda::bf16> {
  static constexpr auto forward = cuda::low_rank_forward_bf16;
  static constexpr auto backward_x = cuda::low_rank_backward_x_bf16;
  static constexpr auto backward_e = cuda::low_rank_backward_e_bf16;
  static constexpr int kThreads = cuda::bf16_tiles::kThreads, kTileOfE = 64, kBlocksOfE = 128;
};

std::int64_t tiles_of(std::int64_t n, int tile) { return (n + tile - 1) / tile; }

/// Parts of de's sum: as many as fit beside its tiles, but none without a chunk of columns.
template <class T>
std::int64_t parts_of_e(const LowRankBackward& a) {
  constexpr int kTile = Kernels<T>::kTileOfE;
  const std::int64_t tiles = std::max<std::int64_t>(1, tiles_of(a.e.dim(0), kTile) * tiles_of(a.e.dim(1), kTile));
  const std::int64_t chunks = a.x.dim(0) * tiles_of(a.x.dim(2), cuda::kChunkOfE);
  return std::max<std::int64_t>(1, std::min(Kernels<T>::kBlocksOfE / tiles, chunks));
}
/// Elements of scratch memory for the parts, which are summed in another pass; one part is the sum itself.
template <class T>
std::int64_t sums_of_e(const LowRankBackward& a) {
  const std::int64_t parts = parts_of_e<T>(a);
  return parts > 1 ? parts * a.e.numel() : 0;
}

/// Starts `kernel` over tiles of (rows, columns) unless there are none.
template <class T>
void start(const Exec& exec, const char* name, void (*kernel)(cuda::LowRankOperands<T>),
           const cuda::LowRankOperands<T>& o, int columns, int rows, int tile, int samples) {
  if (columns == 0 || rows == 0 || samples == 0) return;
  const dim3 grid(static_cast<unsigned>(tiles_of(columns, tile)), static_cast<unsigned>(tiles_of(rows, tile)),
                  static_cast<unsigned>(samples));
  cuda::check_launch(name,
                     cuda::launch(kernel, {grid, Kernels<T>::kThreads, 0, static_cast<cudaStream_t>(exec.stream)}, o));
}

template <class T>
void forward_as(const Exec& exec, const LowRankForward& a) {
  cuda::LowRankOperands<T> o = operands_of<T>(a);
  o.y = sample_rows<T>(a.y);
  start<T>(exec, a.name, Kernels<T>::forward, o, o.width, o.slots, 64, o.batch);
}

template <class T>
void backward_as(const Exec& exec, const LowRankBackward& a) {
  cuda::LowRankOperands<T> o = operands_of<T>(a);
  o.dy = sample_rows<const T>(a.dy);
  if (a.dx && a.dx.to.dtype != a.x.dtype)
    o.dx_f32 = sample_rows<float>(a.dx.to, a.dx.add);
  else
    o.dx = sample_rows<T>(a.dx.to, a.dx.add);
  if (a.dx) start<T>(exec, a.name, Kernels<T>::backward_x, o, o.width, o.tokens, 64, o.batch);
  if (!a.de) return;
  auto* const sums = static_cast<float*>(exec.workspace);
  const std::int64_t parts = parts_of_e<T>(a), of_part = a.e.numel();
  o.token = reinterpret_cast<std::int32_t*>(sums + sums_of_e<T>(a));
  o.de = sample_rows<float>(a.de.to, a.de.add);
  if (parts > 1) o.de = {{sums, o.slots, o.slots % 4 == 0}, of_part};
  if (o.positions > 0 && o.batch > 0)
    cuda::check_launch(a.name, cuda::launch(cuda::tokens_by_rank,
                                            {dim3(1, static_cast<unsigned>(o.batch)), cuda::f32_tiles::kThreads, 0,
                                             static_cast<cudaStream_t>(exec.stream)},
                                            o.ranks, o.tokens, o.positions, o.token));
  start<T>(exec, a.name, Kernels<T>::backward_e, o, o.slots, o.positions, Kernels<T>::kTileOfE,
           static_cast<int>(parts));
  if (parts > 1) cuda::finish_sum(exec, a.name, sums, of_part, parts, of_part, a.de);
}

}  // namespace

/// The parts of de's sum, then the table of tokens by rank.
template <>
std::size_t workspace_bytes<Device::cuda>(const Exec&, const LowRankBackward& a) {
  if (!a.de) return 0;
  const std::int64_t sums = is_bf16(a) ? sums_of_e<cuda::bf16>(a) : sums_of_e<float>(a);
  return static_cast<std::size_t>(sums) * sizeof(float) +
         static_cast<std::size_t>(a.x.dim(0) * a.e.dim(0)) * sizeof(std::int32_t);
}

template <>
void run<Device::cuda>(Exec& exec, const LowRankForward& a) {
  is_bf16(a) ? forward_as<cuda::bf16>(exec, a) : forward_as<float>(exec, a);
}

template <>
void run<Device::cuda>(Exec& exec, const LowRankBackward& a) {
  is_bf16(a) ? backward_as<cuda::bf16>(exec, a) : backward_as<float>(exec, a);
}

}  // namespace cald
