// What a run costs: memory as planned and as measured, and time.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "train/planned_memory.h"

namespace cald {

/// Bytes by class: the persistent tensors of `heap`, and what the largest plan holds at its peak.
struct MemoryCost {
  std::size_t by_class[kMemClasses] = {};
  std::size_t persistent = 0;   ///< weights, teacher, gradients, optimizer
  std::size_t arena = 0;        ///< activations and workspace, as placed
  std::size_t lower_bound = 0;  ///< of the arena: the largest sum of live bytes
  std::string peak_op;          ///< where that sum is reached
  std::string peak_phase;       ///< kind of step and batch shape

  std::size_t total() const { return persistent + arena; }
};

/// The cost before the first step; `memory` has been planned and its arena not yet taken from `heap`.
MemoryCost memory_cost(const HeapAllocator& heap, const PlannedMemory& memory);

/// plan.json: the above with the live bytes over the events of the largest plan.
nlohmann::json plan_json(const MemoryCost& cost, const PlannedMemory& memory);

/// Largest resident size that this process has had, in bytes; 0 where the system does not say.
std::size_t peak_resident_bytes();

/// "1536", "200MiB", "1.5GiB" as bytes; usage error that names `key` otherwise.
std::size_t parse_bytes(const std::string& text, const std::string& key);

}  // namespace cald
