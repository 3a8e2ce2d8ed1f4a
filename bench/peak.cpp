#include "bench/peak.h"

#include <algorithm>
#include <chrono>

#include "engine/context.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"

namespace cald {
namespace {

/// The least time of a launch over repetitions that fill `seconds`, at least three.
template <class Args>
double fastest(Context& c, const Args& args, double seconds) {
  using Clock = Launch::Clock;
  double best = 1e30;
  const auto start = Clock::now();
  for (int i = 0; i < 3 || std::chrono::duration<double>(Clock::now() - start).count() < seconds; ++i) {
    const auto before = Clock::now();
    c.launch(args);
    best = std::min(best, std::chrono::duration<double>(Clock::now() - before).count());
  }
  return best;
}

Tensor filled(Context& c, const Shape& shape) {
  Tensor t = c.empty(shape);
  c.launch(Fill{t, 1.0f});
  return t;
}

}  // namespace

Peak measure_peak(const Exec& exec, double seconds) {
  HeapAllocator heap;
  Context c(exec, heap);
  Peak peak;
  {
    constexpr std::int64_t kElements = std::int64_t{8} << 20;  // 32 MiB
    const Tensor a = filled(c, {kElements}), x = filled(c, {kElements}), y = filled(c, {kElements});
    const Add triad{x, y, a, 1.0f, 3.0f};
    peak.bytes_per_s = cost_of(triad).bytes / fastest(c, triad, seconds / 3);
  }
  // Which shape is the fastest differs between processors; none has rows of a multiple of 4 KiB, which alias in caches.
  for (const auto& [m, n, k] :
       {std::array{1008, 1008, 1008}, std::array{2016, 720, 720}, std::array{1008, 2000, 720}}) {
    const Tensor x = filled(c, {m, k}), w = filled(c, {n, k}), y = filled(c, {m, n});
    const Gemm product{x, w, {}, {y, false}, false, true};
    peak.flop_per_s = std::max(peak.flop_per_s, cost_of(product).flop / fastest(c, product, seconds / 6));
  }
  return peak;
}

}  // namespace cald
