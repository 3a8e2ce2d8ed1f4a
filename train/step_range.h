// Which of the steps that a process runs are looked at closely: traced, profiled.
#pragma once
#include <cstdint>
#include <string>

namespace cald {

/// Counted from 1 at the first that this process runs: both ends included.
struct StepRange {
  std::int64_t first, last;

  bool holds(std::int64_t step) const { return first <= step && step <= last; }
  /// "4:6", or "4" alone; a usage error, which names the flag, for anything else and for more than kMost steps.
  static StepRange parse(const std::string& text, const char* flag);
  /// A guided step of a base model has some 700 launches of less than 200 bytes each: a trace stays below 20 MB.
  static constexpr std::int64_t kMost = 100;
};

/// Behind the steps in which products are compiled, code is loaded and pages are first touched.
constexpr const char* kSteadySteps = "4:6";

}  // namespace cald
