// The formulas that stand beside the CUDA kernels: bytes of device memory that a launch's threads ask for, by kernel.
// Operands are as in the launch; what several threads of a warp read together counts for each of them.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/gemm.h"
#include "kernels/layer_norm.h"
#include "kernels/losses.h"
#include "kernels/low_rank.h"
#include "kernels/optimizer.h"

namespace cald::test {

struct KernelBytes {
  std::string kernel;  ///< part of the name; all launches of such kernels together
  std::int64_t loaded, stored;
};
using Tiling = std::vector<KernelBytes>;

inline std::int64_t tiles(std::int64_t n, std::int64_t tile) { return (n + tile - 1) / tile; }
inline std::int64_t bytes(const TensorRef& t) {
  return t.present ? t.numel() * static_cast<std::int64_t>(size_of(t.dtype)) : 0;
}
inline std::int64_t bytes_added_to(const GradRef& g) { return g.add ? bytes(g.to) : 0; }

inline Tiling tiling_of(const Fill& a) { return {{"walk_elements<", 0, bytes(a.y)}}; }
inline Tiling tiling_of(const Copy& a) { return {{"walk_elements<", bytes(a.x), bytes(a.y)}}; }
inline Tiling tiling_of(const Add& a) {
  return {{"walk_elements<", bytes(a.a) + (a.beta != 0.0f ? bytes(a.b) : 0), bytes(a.y)}};
}
inline Tiling tiling_of(const FindNonFinite& a) { return {{"walk_elements<", bytes(a.x), 0}}; }
inline Tiling tiling_of(const ActivationForward& a) { return {{"walk_elements<", bytes(a.x), bytes(a.y)}}; }
inline Tiling tiling_of(const ActivationBackward& a) {
  return {{"walk_elements<", bytes(a.x) + bytes(a.dy) + bytes_added_to(a.dx), bytes(a.dx.to) + bytes(a.y)}};
}
inline Tiling tiling_of(const DropoutApply& a) {
  return {{"dropout_rows", bytes(a.x) + a.x.numel() + bytes_added_to(a.y), bytes(a.y.to)}};
}

inline std::int64_t bytes_of_sums(std::int64_t rows, std::int64_t cols) { return 4 * tiles(rows, 128) * cols; }
inline Tiling tiling_of(const ColumnSum& a) {
  const std::int64_t sums = bytes_of_sums(a.x.rows(), a.x.cols());
  return {{"sum_rows<", bytes(a.x), sums}, {"sum_blocks", sums + bytes_added_to(a.y), bytes(a.y.to)}};
}
/// A product without any k; the others are cuBLASLt's.
inline Tiling tiling_of(const Gemm& a) {
  const std::int64_t c = a.c.to.numel();
  return {{"rows_from_bias<", (a.bias.present ? 4 * c : 0) + bytes_added_to(a.c), bytes(a.c.to)}};
}

inline Tiling tiling_of(const LayerNormForward& a) {
  const std::int64_t n = a.x.numel(), each = 8 + (a.weight.present ? 4 : 0) + (a.bias.present ? 4 : 0);
  return {{"layer_norm<", bytes(a.x) + bytes(a.residual) + each * n + (a.dropout.active() ? n : 0),
           8 * n + bytes(a.mean) + bytes(a.rstd)}};
}
inline Tiling tiling_of(const LayerNormBackward& a) {
  const std::int64_t rows = a.dy.rows(), cols = a.dy.cols(), n = a.dy.numel(), sums = bytes_of_sums(rows, cols);
  Tiling t;
  if (a.dweight || a.dbias) {
    t.push_back({"layer_norm_weight_sums", 16 * n, 2 * sums});
    t.push_back({"sum_blocks", sums * (static_cast<bool>(a.dweight) + static_cast<bool>(a.dbias)),
                 bytes(a.dweight.to) + bytes(a.dbias.to)});
  }
  if (a.dx || a.dresidual)
    t.push_back({"layer_norm_backward<",
                 (a.weight.present ? 24 : 16) * n + 256 * rows + (a.dx && a.dropout.active() ? n : 0) +
                     bytes_added_to(a.dx) + bytes_added_to(a.dresidual),
                 bytes(a.dx.to) + bytes(a.dresidual.to)});
  return t;
}

inline Tiling tiling_of(const EmbeddingForward& a) {
  const std::int64_t tables = 1 + a.position.present + a.type.present;
  return {{"embedding_sum", tables * (bytes(a.y) + 128 * a.word_ids.numel()), bytes(a.y)}};
}
inline Tiling tiling_of(const EmbeddingBackward& a) {
  const std::int64_t n = a.ids.numel(), d = a.dy.cols();
  const std::int64_t sums = 4 * d * (a.rows.present ? n : std::min(n, a.dtable.to.rows()));
  Tiling t;
  if (!a.rows.present && !a.dtable.add) t.push_back({"walk_elements<", 0, bytes(a.dtable.to)});
  t.push_back({"sort_tokens", tiles(n, 32) * (4 * n + 1024), n * (a.rows.present ? 16 : 12)});
  t.push_back({"embedding_scatter", bytes(a.dy) + 12 * tiles(d, 128) * n + (a.dtable.add ? sums : 0), sums});
  return t;
}

/// `reads` of each element; what a warp reads of its row by each lane is 128 bytes.
inline Tiling loss_tiling(const TensorRef& x, std::int64_t reads, std::int64_t of_row, std::int64_t counted) {
  return {{"loss_of_rows<", x.numel() * reads + x.rows() * of_row, 8 * x.rows()},
          {"mean_of_rows", 8 * x.rows() + counted, 4}};
}
inline Tiling gradient_tiling(const TensorRef& x, std::int64_t reads, std::int64_t of_row, std::int64_t counted,
                              const GradRef& to) {
  return {{"gradient_factor", 4 + counted, 4},
          {"gradient_of_rows<", x.numel() * reads + x.rows() * (128 + of_row) + bytes_added_to(to), bytes(to.to)}};
}
template <class Args>
std::int64_t counted_bytes(const Args& a) {
  return a.all_labels.present ? bytes(a.all_labels) : bytes(a.labels);
}
inline Tiling tiling_of(const CrossEntropyForward& a) { return loss_tiling(a.logits, 8, 384, counted_bytes(a)); }
inline Tiling tiling_of(const CrossEntropyBackward& a) {
  return gradient_tiling(a.logits, 12, 256, counted_bytes(a), a.dlogits);
}
inline Tiling tiling_of(const KlForward& a) { return loss_tiling(a.student, 24, 0, 0); }
inline Tiling tiling_of(const KlBackward& a) { return gradient_tiling(a.student, 24, 0, 0, a.dstudent); }
inline Tiling tiling_of(const SquaredErrorForward& a) {
  return loss_tiling(a.student, a.normalise ? 24 : 8, a.mask.present ? 128 : 0, bytes(a.mask));
}
inline Tiling tiling_of(const SquaredErrorBackward& a) {
  return gradient_tiling(a.student, a.normalise ? 40 : 8, a.mask.present ? 128 : 0, bytes(a.mask), a.dstudent);
}

inline Tiling tiling_of(const AdamW& a) {
  KernelBytes b{"adamw_update", 0, 0};
  for (const AdamWSlot& s : *a.slots) {
    const std::int64_t n = s.rows.present ? s.grad.numel() : s.value.numel();
    const std::int64_t moments = s.has_bf16_moments() ? 4 : 8;
    const std::int64_t of_thread = s.value.cols() % 4 == 0 ? 4 : 1;
    b.loaded += (8 + moments) * n + (s.rows.present ? 8 * s.value.numel() / of_thread : 0);
    b.loaded += a.max_norm > 0 ? s.value.numel() / 4 : 0;
    b.stored += (4 + moments) * n + (s.rows.present ? 4 * s.grad.rows() : 0);
  }
  return {b};
}
inline Tiling tiling_of(const GradientNorm& a) {
  std::int64_t n = 0, chunks = 0;
  for (const AdamWSlot& s : *a.slots) n += s.grad.numel(), chunks += tiles(s.grad.numel(), 4096);
  return {{"gradient_squares", 4 * n, 8 * chunks}, {"norm_of_sums", 8 * chunks, 4}};
}

inline Tiling tiling_of(const LowRankForward& a) {
  const std::int64_t b = a.x.dim(0), s = a.x.dim(1), d = a.x.dim(2), k = a.e.dim(1);
  const std::int64_t operands = tiles(k, 64) * bytes(a.x) + 4 * b * tiles(d, 64) * s * k;
  const std::int64_t blocks = b * tiles(k, 64) * tiles(d, 64);
  if (a.x.dtype == DType::bf16) return {{"low_rank_forward_bf16", operands + blocks * (96 * s + 512), bytes(a.y)}};
  return {{"low_rank_forward_f32", operands + blocks * 4 * s, bytes(a.y)}};
}
inline Tiling tiling_of(const LowRankBackward& a) {
  const std::int64_t b = a.x.dim(0), s = a.x.dim(1), d = a.x.dim(2), k = a.e.dim(1), p = a.e.dim(0);
  const bool bf16 = a.x.dtype == DType::bf16;
  const std::int64_t size = bf16 ? 2 : 4, tile = bf16 ? 64 : 32;
  Tiling t;
  if (a.dx)
    t.push_back({bf16 ? "low_rank_backward_x_bf16" : "low_rank_backward_x_f32",
                 b * (4 * tiles(d, 64) * s * k + size * tiles(s, 64) * k * d +
                      tiles(s, 64) * tiles(d, 64) * (bf16 ? 2048 * tiles(k, 32) + 512 : 256)),
                 bytes(a.dx.to)});
  if (!a.de) return t;
  t.push_back({"tokens_by_rank", 4 * b * s, 4 * b * (p + s)});
  const std::int64_t blocks = tiles(k, tile) * tiles(p, tile), most = (bf16 ? 128 : 256) / blocks;
  const std::int64_t parts = std::max<std::int64_t>(1, std::min(most, b * tiles(d, 64)));
  const std::int64_t samples = std::max(b, parts);  // that the blocks of a tile look at, each at its tokens
  t.push_back({bf16 ? "low_rank_backward_e_bf16" : "low_rank_backward_e_f32",
               b * size * (tiles(k, tile) * p * d + tiles(p, tile) * k * d) +
                   blocks * (bf16 ? b * 2048 * tiles(d, 64) + samples * 768 : samples * 4 * tile),
               parts * bytes(a.de.to)});
  if (parts > 1) t.push_back({"sum_blocks", parts * bytes(a.de.to) + bytes_added_to(a.de), bytes(a.de.to)});
  return t;
}

struct AttentionExtents {
  std::int64_t n, sq, sk, d;  ///< heads of all samples, queries, keys, head size
};
template <class Args>
AttentionExtents attention_extents(const Args& a) {
  return {a.q.dim(0) * a.heads, a.q.dim(1), a.k.dim(1), a.q.dim(2) / a.heads};
}
inline Tiling tiling_of(const AttentionForward& a) {
  const auto [n, sq, sk, d] = attention_extents(a);
  if (a.q.dtype == DType::bf16)
    return {{"attention_forward_bf16", n * (2 * sq * d + tiles(sq, 64) * sk * (4 * d + 8)), n * sq * (2 * d + 4)}};
  return {{"attention_forward_f32", 4 * n * (sq * d + tiles(sq, 64) * sk * (2 * d + 2)), 4 * n * sq * (d + 1)}};
}
inline Tiling tiling_of(const AttentionBackward& a) {
  const auto [n, sq, sk, d] = attention_extents(a);
  if (a.q.dtype == DType::bf16) {
    const std::int64_t of_dq = n * (4 * sq * d + tiles(sq, 64) * sk * (4 * d + 8) + 32 * sq);
    const std::int64_t of_dk = n * (4 * sk * d + tiles(sk, 64) * sq * (4 * d + 8) + 20 * sk);
    Tiling t{{"attention_delta_bf16", n * 4 * sq * d, n * sq * 4}, {"(cald::cuda::Gradients)0", of_dq, n * sq * d * 2}};
    if (d <= 128) t.push_back({"(cald::cuda::Gradients)1", of_dk, n * sk * d * 4});
    if (d > 128) t.push_back({"(cald::cuda::Gradients)2", of_dk, n * sk * d * 2});
    if (d > 128) t.push_back({"(cald::cuda::Gradients)3", of_dk, n * sk * d * 2});
    return t;
  }
  const std::int64_t held = d <= 128 ? 64 : 32;
  const std::int64_t walk = tiles(sq, held) * sk * (2 * d + 2);
  return {{"attention_sums_f32", 4 * n * (2 * sq * d + walk + 16 * sq), 4 * n * sq * 2},
          {", false>", 4 * n * (2 * sq * d + walk + 48 * sq), 4 * n * sq * d},
          {", true>", 4 * n * (2 * sk * d + tiles(sk, held) * sq * (2 * d + 3) + 17 * sk), 4 * n * 2 * sk * d}};
}

}  // namespace cald::test
