// The table of where time goes, with each kernel's rate and its share of what the machine can do.
#pragma once
#include <string>

#include "bench/peak.h"
#include "train/kernel_times.h"

namespace cald {

/// Kernels by descending time: calls, seconds, share; GFLOP/s of those that multiply matrices, GB/s of all others, and
/// that as a share of the peak.
std::string time_table(const KernelTimes& times, const Peak& peak);

}  // namespace cald
