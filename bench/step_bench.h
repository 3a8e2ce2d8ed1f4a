// A whole training step of any recipe, on random tokens.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "bench/peak.h"
#include "train/cost.h"
#include "train/kernel_times.h"
#include "train/options.h"

namespace cald {

struct StepBenchOptions {
  RunOptions run;  ///< resolved; what names data, files to write and the length of the run is not used
  std::int64_t seq = 128;
  std::int64_t iterations = 5;
  std::int64_t warmup = 2;  ///< steps before the measured ones; long steps need one
  std::string trace;        ///< file for a trace of up to three measured steps; empty: none
};

struct StepBenchResult {
  std::vector<double> seconds;  ///< of each measured step, in their order
  std::int64_t tokens = 0;      ///< of a step
  KernelTimes kernels;          ///< of all measured steps
  MemoryCost memory;
  std::size_t peak_resident = 0;
  Peak peak;

  double median_seconds() const;
  double mean_seconds() const;
  Cost cost_of_step() const;
};

/// Full batches without pads, distillation on. The trainer's own code runs: the same batches, guide, memory plan and
/// update as in a run. Errors: see Trainer.
StepBenchResult run_step_benchmark(const StepBenchOptions& options);

/// Google Benchmark's layout, so that results compare as those of kernels do: an entry for each step, then each
/// kernel's seconds in a step.
std::string step_json(const StepBenchOptions& options, const StepBenchResult& result);

}  // namespace cald
