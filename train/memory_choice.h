// Memory as a choice: how much of a step is computed again or in parts, so that a run fits into a budget.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace cald {

struct MemoryChoice {
  std::int64_t recompute = 0;      ///< layers whose activations are computed again
  std::int64_t micro_batches = 1;  ///< parts of a batch
  bool map_teacher = false;        ///< a frozen teacher is read from its files
  std::size_t bytes = 0;           ///< the run's peak, as planned
  double time = 1;                 ///< of a step, in steps that keep everything; estimated
};

/// What bounds the search. The choices of the options are the least that it considers.
struct MemoryBounds {
  std::int64_t layers, batch;
  double tokens;  ///< of a batch, on average
  std::int64_t least_recompute = 0, least_micro_batches = 1;
  /// Forward passes that a plain step costs: 3 for a student alone, 4 with a frozen teacher, 6 with one that learns.
  double passes = 3;
  bool map_teacher = false;  ///< of all choices that are looked at
};

/// The peak of a run with these two choices, by a shape-only run.
using BytesOf = std::function<std::size_t(std::int64_t recompute, std::int64_t micro_batches)>;

/// For 1, 2, 4, ... parts of a batch: keeping everything, half of the layers and none; the trade that `cald plan`
/// shows.
std::vector<MemoryChoice> memory_trade(const MemoryBounds& bounds, const BytesOf& bytes);

/// The fastest choice within `budget` bytes; absent if none fits.
std::optional<MemoryChoice> fit_memory(const MemoryBounds& bounds, const BytesOf& bytes, std::size_t budget);

}  // namespace cald
