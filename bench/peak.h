// What the machine can do at most, measured: the roof that kernels are held against.
#pragma once
#include <string>

#include "engine/base/exec.h"
#include "kernels/launch.h"

namespace cald {

struct Peak {
  double flop_per_s = 0;       ///< of the fastest f32 matrix product
  double bf16_flop_per_s = 0;  ///< the same in bf16; 0 where it was not measured
  double bytes_per_s = 0;      ///< of a = b + s c over vectors beyond the caches (McCalpin's triad)

  double compute_seconds(const Cost& c) const {
    return (c.flop - c.bf16_flop) / flop_per_s + (c.bf16_flop > 0 ? c.bf16_flop / bf16_flop_per_s : 0);
  }
  /// Roofline (Williams et al. 2009): the least time that the launch can take if all its operands come from memory.
  double least_seconds(const Cost& c) const {
    const double compute = compute_seconds(c), memory = c.bytes / bytes_per_s;
    return compute > memory ? compute : memory;
  }
  /// "231 GFLOP/s (f32), 454 GFLOP/s (bf16), 49 GB/s"
  std::string text() const;
};

/// Takes about `seconds`, and 96 MiB or, on a device that runs ahead, 768. `bf16`: measures its products too.
Peak measure_peak(const Exec& exec, bool bf16, double seconds = 0.3);

}  // namespace cald
