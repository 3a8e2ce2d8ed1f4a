#include "bench/peak.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "bench/kept_memory.h"
#include "engine/context.h"
#include "engine/parameter.h"
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
    c.synchronize();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - before).count());
  }
  return best;
}

Tensor filled(Context& c, const Shape& shape, DType dtype = DType::f32) {
  Tensor t = c.empty(shape, dtype);
  c.launch(Fill{t, 1.0f});
  return t;
}

double triad_rate(Context& c, double seconds) {
  const std::int64_t elements = std::int64_t{c.runs_ahead() ? 64 : 8} << 20;  // 256 or 32 MiB, beyond the last cache
  const Tensor a = filled(c, {elements}), x = filled(c, {elements}), y = filled(c, {elements});
  const Add triad{x, y, a, 1.0f, 3.0f};
  return cost_of(triad).bytes / fastest(c, triad, seconds);
}

/// Which shape is the fastest differs between processors. None has rows of a multiple of 4 KiB, which alias in caches.
/// A device that runs ahead has far more units to fill.
double product_rate(Context& c, Allocator& memory, DType dtype, double seconds) {
  using Extents = std::array<std::int64_t, 3>;
  static constexpr std::array<Extents, 3> kOfProcessors{{{1008, 1008, 1008}, {2016, 720, 720}, {1008, 2000, 720}}};
  static constexpr std::array<Extents, 3> kOfDevices{{{8192, 8192, 8192}, {8192, 4096, 4096}, {4096, 4096, 8192}}};
  const auto& shapes = c.runs_ahead() ? kOfDevices : kOfProcessors;
  double best = 0;
  for (const auto& [m, n, k] : shapes) {
    const Tensor x = filled(c, {m, k}, dtype), y = filled(c, {m, n});
    Tensor w = filled(c, {n, k});
    if (dtype == DType::bf16) {
      const Tensor copy = weight_copy({n, k}, Packing::forward, memory, MemClass::weights, "weight");
      c.launch(Copy{w, copy});
      w = copy;
    }
    const Gemm product{x, w, {}, {y, false}, false, true};
    best = std::max(best, cost_of(product).flop / fastest(c, product, seconds / static_cast<double>(shapes.size())));
  }
  return best;
}

std::string giga(double rate) {
  char s[32];
  std::snprintf(s, sizeof s, "%.1f", rate / 1e9);
  return s;
}

}  // namespace

std::string Peak::text() const {
  return giga(flop_per_s) + " GFLOP/s (f32), " +
         (bf16_flop_per_s > 0 ? giga(bf16_flop_per_s) + " GFLOP/s (bf16), " : "") + giga(bytes_per_s) + " GB/s";
}

Peak measure_peak(const Exec& exec, bool bf16, double seconds) {
  KeptMemory memory(exec.device);
  Context c(exec, memory);
  Peak peak;
  peak.bytes_per_s = triad_rate(c, seconds / 3);
  peak.flop_per_s = product_rate(c, memory, DType::f32, seconds / 3);
  if (bf16) peak.bf16_flop_per_s = product_rate(c, memory, DType::bf16, seconds / 3);
  return peak;
}

}  // namespace cald
