// Benchmarks of the kernels, forward and backward, at the shapes of a training step.
#pragma once
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "engine/base/exec.h"

namespace cald {

/// The extents that a step's launches have. A row of the hidden states has `hidden` features.
struct StepShape {
  std::string name;
  std::int64_t batch, seq, hidden, heads, ffn, slots, vocab;
};

/// MiniLM-L6 at 32 x 128 tokens and RoBERTa-base at 8 x 128, converted to 128 slots.
std::vector<StepShape> default_shapes();
/// "B,S,D[,heads[,ffn[,slots]]]"; what is left out is 12 heads, 4 D, 128 slots. Usage error for anything else.
StepShape parse_shape(const std::string& text);

struct KernelBenchOptions {
  std::string filter;  ///< regular expression; only benchmarks whose name has a match
  std::vector<StepShape> shapes;
  std::int64_t iterations = 0;   ///< of each measurement; 0: as many as fill a tenth of a second
  std::int64_t repetitions = 3;  ///< measurements of each benchmark
  Exec exec;
  std::string json;  ///< file for Google Benchmark's JSON; empty: none
};

/// Prints a line for each benchmark to `out`: median time, GFLOP/s, GB/s, the share of the time that the machine's peak
/// would need (Peak::least_seconds), and the spread of the measurements. Usage error if no name matches.
void run_kernel_benchmarks(const KernelBenchOptions& options, std::FILE* out);

}  // namespace cald
