// What a run says while it runs: one line rewritten on a terminal, plain lines elsewhere.
#pragma once
#include <chrono>
#include <cstdio>
#include <string>

#include "train/train_step.h"

namespace cald {

class Progress {
 public:
  /// Writes to `out` (stderr in the program).
  explicit Progress(std::FILE* out);

  /// A line that stays.
  void say(const std::string& line);
  /// Step `step` of `total` is done; shown at most every so often. tokens_per_second counts valid tokens.
  void step(std::int64_t step, std::int64_t total, const StepLosses& losses, double tokens_per_second);

 private:
  std::FILE* out_;
  bool terminal_;
  bool line_open_ = false;
  std::chrono::steady_clock::time_point start_, shown_;
  std::int64_t first_step_ = -1;
};

}  // namespace cald
