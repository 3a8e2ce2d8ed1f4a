#include "train/cost.h"

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

namespace cald {

MemoryCost memory_cost(const HeapAllocator& heap, const PlannedMemory& memory) {
  MemoryCost c;
  for (int i = 0; i < kMemClasses; ++i) {
    c.by_class[i] = heap.live_bytes_of(static_cast<MemClass>(i));
    c.persistent += c.by_class[i];
  }
  const MemoryPlan* plan = memory.largest();
  if (!plan) return c;
  for (int i = 0; i < kMemClasses; ++i) c.by_class[i] += plan->peak_by_class[static_cast<std::size_t>(i)];
  c.arena = memory.bytes();
  c.lower_bound = plan->lower_bound;
  c.peak_op = plan->peak_op();
  const PlanKey& key = *memory.largest_key();
  c.peak_phase = key.phase + ", batch " + std::to_string(key.batch) + " x " + std::to_string(key.seq) + " tokens";
  return c;
}

nlohmann::json plan_json(const MemoryCost& c, const PlannedMemory& memory) {
  nlohmann::json j;
  for (int i = 0; i < kMemClasses; ++i) j["bytes"][name_of(static_cast<MemClass>(i))] = c.by_class[i];
  j["peak_bytes"] = c.total();
  j["arena_bytes"] = c.arena;
  j["lower_bound_bytes"] = c.lower_bound;
  j["peak_op"] = c.peak_op;
  j["peak_phase"] = c.peak_phase;
  j["timeline"] = nlohmann::json::array();
  if (!memory.largest()) return j;
  constexpr std::size_t kPoints = 1000;
  const auto& events = memory.largest()->events;
  const std::size_t stride = events.size() / kPoints + 1;
  std::size_t live = c.persistent, top = 0;
  for (std::size_t t = 0; t < events.size(); ++t) {
    live += events[t].take ? planned_size(events[t].bytes) : -planned_size(events[t].bytes);
    top = std::max(top, live);
    if ((t + 1) % stride != 0 && t + 1 != events.size()) continue;
    j["timeline"].push_back(top);  // the peak of the events since the last point
    top = 0;
  }
  return j;
}

std::size_t peak_resident_bytes() {
  // Not getrusage's ru_maxrss: that is never less than what the process had that started this one.
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("VmHWM:", 0) == 0) return std::strtoull(line.c_str() + 6, nullptr, 10) * 1024;
  return 0;
}

std::size_t parse_bytes(const std::string& text, const std::string& key) {
  double n = 0;
  int read = 0;
  const bool number = std::sscanf(text.c_str(), "%lf%n", &n, &read) == 1;
  const std::string rest = number ? text.substr(static_cast<std::size_t>(read)) : "";
  const double scale = rest.empty() || rest == "B" ? 1
                       : rest == "KiB"             ? 1024.0
                       : rest == "MiB"             ? 1048576.0
                       : rest == "GiB"             ? 1073741824.0
                                                   : 0;
  if (!number || scale == 0 || !(n > 0) || n * scale > 1e15)
    throw usage_error("--" + key + " '" + text + "': wanted bytes, such as 1500000000, 600MiB or 1.5GiB");
  return static_cast<std::size_t>(std::llround(n * scale));
}

}  // namespace cald
