#include "train/planned_memory.h"

#include <algorithm>
#include <thread>

namespace cald {

Exec exec_on(Device device, std::int64_t threads, DType compute, bool tf32) {
  const auto all = std::clamp<std::int64_t>(std::thread::hardware_concurrency(), 1, kMostThreads);
  return {.device = device, .threads = static_cast<int>(threads > 0 ? threads : all), .compute = compute, .tf32 = tf32};
}

const MemoryPlan& PlannedMemory::add(const PlanKey& key, const std::vector<MemoryEvent>& events) {
  MemoryPlan plan;
  bool fits = false;
  for (const auto& [other, larger] : plans_)
    if (!fits && other.phase == key.phase) fits = fits_into(larger, events, plan);
  if (!fits) plan = plan_memory(events);
  const auto it = plans_.emplace(key, std::move(plan)).first;
  if (!largest_ || it->second.bytes > bytes_) {
    largest_ = &it->second;
    largest_key_ = &it->first;
    bytes_ = it->second.bytes;
  }
  return it->second;
}

const MemoryPlan& PlannedMemory::planned(const PlanKey& key) const {
  const auto it = plans_.find(key);
  if (it == plans_.end())
    throw Error("memory plan: no plan for " + key.phase + " with " + std::to_string(key.batch) + " x " +
                std::to_string(key.seq) + " tokens");
  return it->second;
}

void* PlannedMemory::arena() {
  if (!arena_ || arena_->bytes < bytes_) {
    arena_.reset();  // before the larger one is taken
    arena_ = heap_.allocate(bytes_, MemClass::activations, "arena");
  }
  return arena_->data;
}

}  // namespace cald
