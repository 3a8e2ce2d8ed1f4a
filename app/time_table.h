// The tables of where time goes, beside what the machine's peak allows.
#pragma once
#include <string>

#include "bench/peak.h"
#include "train/kernel_times.h"

namespace cald {

/// Kernels by descending time: calls, seconds, share; GFLOP/s of those that multiply matrices, GB/s of all others; and
/// which share of its time the kernel would need at the peak (Peak::least_seconds of each launch).
std::string time_table(const KernelTimes& times, const Peak& peak);

/// The roofline of a step, from the launches of `steps` steps: for each kernel what a step has of calls, GFLOP and GB,
/// the least time that the peak allows for them, the time that they took, and its share of `step_seconds`; at the end
/// the sums, and what the step took outside of kernels.
std::string roofline_table(const KernelTimes& times, const Peak& peak, std::int64_t steps, double step_seconds);

}  // namespace cald
