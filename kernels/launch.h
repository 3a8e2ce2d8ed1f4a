// The contract between ops and backends.
//
// A launch is one struct of TensorRefs and scalars. A backend implements it by specialising run<Device::...> for the
// struct; a backend that lacks one fails to link. If the kernel needs scratch memory it also specialises
// workspace_bytes, which the memory planner asks before any data exists (TensorRefs then have null addresses).
// Beside the struct stands cost_of(const Args&), one for all backends: what traces and rooflines count.
#pragma once
#include "engine/base/exec.h"
#include "engine/base/tensor_ref.h"

namespace cald {

template <Device D, class Args>
void run(Exec&, const Args&);

template <Device D, class Args>
std::size_t workspace_bytes(const Exec&, const Args&) {
  return 0;
}

/// What a launch must do, whoever implements it.
struct Cost {
  /// Two for each multiply-add of its matrix products. Elementwise arithmetic is not counted: bytes bound it.
  double flop = 0;
  /// Read and written if every operand moves once between memory and processor.
  double bytes = 0;
  double bf16_flop = 0;  ///< what of `flop` has operands in bf16
  Cost& operator+=(const Cost& o) {
    flop += o.flop;
    bytes += o.bytes;
    bf16_flop += o.bf16_flop;
    return *this;
  }
};

/// A gradient's destination: `add` says whether the kernel adds to what stands there or sets it. Not wanted: absent.
struct GradRef {
  TensorRef to;
  bool add = false;
  explicit operator bool() const { return to.present; }
};

}  // namespace cald
