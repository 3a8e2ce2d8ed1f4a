// Threads for the CPU kernels: fixed contiguous parts, so that results never depend on who came first.
#pragma once
#include <algorithm>
#include <cstdint>

#include "engine/base/exec.h"

namespace cald {

/// Number of parts into which `n` items are split: at most exec.threads, and none below `grain` items on average.
inline std::int64_t part_count(const Exec& exec, std::int64_t n, std::int64_t grain) {
  const std::int64_t wanted = n / std::max<std::int64_t>(grain, 1);
  return std::clamp<std::int64_t>(wanted, 1, std::max(exec.threads, 1));
}

/// Calls fn(part, begin, end) for parts 0 .. part_count() - 1, which tile [0, n) in order; part p's bounds depend on n,
/// grain and exec.threads alone. With one part no thread is started. `fn` must not throw. n = 0 calls nothing.
template <class Fn>
void parallel_parts(const Exec& exec, std::int64_t n, std::int64_t grain, const Fn& fn) {
  if (n <= 0) return;
  const std::int64_t parts = part_count(exec, n, grain);
  if (parts == 1) {
    fn(std::int64_t{0}, std::int64_t{0}, n);
    return;
  }
#pragma omp parallel for schedule(static, 1) num_threads(static_cast <int>(parts))
  for (std::int64_t p = 0; p < parts; ++p) fn(p, n * p / parts, n * (p + 1) / parts);
}

/// The same without the part's number: fn(begin, end). Choose `grain` so that a part takes some 20 microseconds or
/// more, which is what a thread's start is worth.
template <class Fn>
void parallel_for(const Exec& exec, std::int64_t n, std::int64_t grain, const Fn& fn) {
  parallel_parts(exec, n, grain, [&](std::int64_t, std::int64_t begin, std::int64_t end) { fn(begin, end); });
}

}  // namespace cald
