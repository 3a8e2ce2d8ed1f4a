// What the machine can do at most, measured: the roof that kernels are held against.
#pragma once
#include "engine/base/exec.h"
#include "kernels/launch.h"

namespace cald {

struct Peak {
  double flop_per_s = 0;   ///< of the fastest matrix product
  double bytes_per_s = 0;  ///< of a = b + s c over vectors beyond the caches (McCalpin's triad)

  /// Roofline (Williams et al. 2009): the least time that the launch can take if all its operands come from memory.
  double least_seconds(const Cost& c) const {
    const double compute = c.flop / flop_per_s, memory = c.bytes / bytes_per_s;
    return compute > memory ? compute : memory;
  }
};

/// Takes about `seconds` and 96 MiB.
Peak measure_peak(const Exec& exec, double seconds = 0.3);

}  // namespace cald
