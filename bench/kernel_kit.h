// What a kernel's benchmark is made of: operands, and the loop that Google Benchmark times.
#pragma once
#include <benchmark/benchmark.h>

#include <algorithm>
#include <functional>

#include "bench/kept_memory.h"
#include "bench/kernel_bench.h"
#include "bench/peak.h"
#include "engine/context.h"

namespace cald {

class KernelKit {
 public:
  KernelKit(benchmark::State& state, const Exec& exec, const Peak& peak)
      : state_(state), peak_(peak), memory_(exec.device), context_(exec, memory_) {}

  // Operands live as long as the kit.
  /// Standard normal values, and their magnitudes, rounded where dtype is bf16.
  TensorRef values(const Shape& shape, DType dtype = DType::f32) { return normal(shape, dtype, false); }
  TensorRef positive(const Shape& shape, DType dtype = DType::f32) { return normal(shape, dtype, true); }
  /// Values in what products compute in.
  TensorRef factors(const Shape& shape) { return values(shape, context_.exec().compute); }
  /// A weight (out, in) as a step's products have it.
  TensorRef weight(const Shape& shape, Packing packing);
  /// Whole numbers: drawn from 0 to below `end`, counted from 0 along a row, all one value.
  TensorRef drawn(const Shape& shape, std::int64_t end);
  TensorRef counted(const Shape& shape);
  TensorRef constant(const Shape& shape, std::int32_t value);

  /// One launch that is not timed (it may compile a product, and it touches the pages), then as many as are asked for.
  template <class Args>
  void time(const Args& args) {
    context_.launch(args);
    context_.synchronize();
    // To wait for a device takes as long as a small kernel: where it runs ahead, several share a wait.
    constexpr std::int64_t kBetweenWaits = 64;
    const std::int64_t n = context_.runs_ahead() ? std::min<std::int64_t>(kBetweenWaits, state_.max_iterations) : 1;
    while (state_.KeepRunningBatch(n)) {
      for (std::int64_t i = 0; i < n; ++i) context_.launch(args);
      context_.synchronize();
    }
    report(cost_of(args));
  }

 private:
  TensorRef normal(const Shape& shape, DType dtype, bool magnitudes);
  template <class T, class Value>
  TensorRef fill(const Shape& shape, Value&& value_at);
  void report(const Cost& cost);

  benchmark::State& state_;
  const Peak& peak_;
  KeptMemory memory_;
  Context context_;
  std::vector<Tensor> operands_;
};

/// A benchmark "<launch's name>/<which>"; a shape's name follows when it is run.
struct KernelCase {
  std::string name;
  std::function<void(KernelKit&, const StepShape&)> run;
};
std::vector<KernelCase> kernel_cases();

}  // namespace cald
