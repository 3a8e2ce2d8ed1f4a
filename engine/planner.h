// The memory planner: from the recorded lifetimes of a step's blocks to one offset for each of them.
#pragma once
#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "engine/storage.h"

namespace cald {

struct MemoryPlan {
  std::vector<MemoryEvent> events;
  std::vector<std::size_t> offsets;  ///< of block id, bytes from the arena's start
  std::size_t bytes = 0;             ///< arena size
  std::size_t lower_bound = 0;       ///< the largest sum of live bytes: no placement can need less
  std::size_t peak_event = 0;        ///< index of the event at which that sum is reached
  std::array<std::size_t, kMemClasses> peak_by_class{};

  const char* peak_op() const { return events.empty() ? "" : events[peak_event].op; }
};

/// Places every block of the recording in one arena so that blocks alive at the same time do not overlap.
///
/// This is dynamic storage allocation, NP-hard; a best-fit by descending size over a few orders comes within a few
/// percent of the lower bound on training graphs, and the plan carries the bound so that the gap is never hidden.
MemoryPlan plan_memory(std::vector<MemoryEvent> events);

/// A recording with the same sequence of takes and returns as `larger`, and no block larger than there, fits at the
/// same offsets: so one plan serves all shorter batches. False, and `plan` untouched, if it is not so.
bool fits_into(const MemoryPlan& larger, const std::vector<MemoryEvent>& events, MemoryPlan& plan);

/// Blocks are rounded to the allocator's alignment, so that neighbours share no cache line.
constexpr std::size_t planned_size(std::size_t bytes) {
  return (bytes + Allocator::kAlignment - 1) / Allocator::kAlignment * Allocator::kAlignment;
}

}  // namespace cald
