// Weights in the layout that oneDNN's products of bf16 read.
#pragma once
#include <cstddef>
#include <cstdint>

#include "engine/base/exec.h"
#include "engine/base/tensor_ref.h"

namespace cald {

/// A right operand (rows, cols) of products in panels of 64 columns: [panel][pair][64][2], where a pair is two rows.
/// Rows are filled up with zeros to a multiple of 32, columns to whole panels.
struct GemmPanels {
  std::int64_t rows, cols;

  static constexpr std::int64_t kWidth = 64, kRowsAtOnce = 32;
  static constexpr std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }
  std::int64_t padded_rows() const { return round_up(rows, kRowsAtOnce); }
  std::int64_t padded_cols() const { return round_up(cols, kWidth); }
  std::size_t bytes() const { return static_cast<std::size_t>(padded_rows() * padded_cols()) * size_of(DType::bf16); }
};

/// What a packed weight (out, in) is as an operand: x W^T has its transpose, dy W the weight itself.
inline GemmPanels panels_of(const Shape& weight, Packing p) {
  return p == Packing::forward ? GemmPanels{weight[1], weight[0]} : GemmPanels{weight[0], weight[1]};
}

/// A weight (out, in), f32 or bf16, whose rows lie `step` elements apart, and the panels that are wanted of it: null is
/// none. `lasting` panels will not be read soon, and go past the caches.
struct PanelPacking {
  const void* weight;
  DType dtype;
  std::int64_t out, in, step;
  void *forward, *backward;
  bool lasting;

  /// Of a matrix, without panels yet.
  static PanelPacking of(const TensorRef& w, bool lasting) {
    return {w.data, w.dtype, w.rows(), w.cols(), w.row_stride(), nullptr, nullptr, lasting};
  }
  static constexpr std::int64_t kStrip = 16;
  std::int64_t strips() const { return (out + kStrip - 1) / kStrip; }
};

/// Packs strips [begin, end) of 16 of the weight's rows, rounded to nearest even; subnormal numbers become 0, which
/// they are to the product too. Only for processors of which cpu_has_bf16() is true.
void pack_strips(const PanelPacking&, std::int64_t begin, std::int64_t end);
/// All of them, by several threads.
void pack_panels(const Exec&, const PanelPacking&);

}  // namespace cald
