#include "engine/planner.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace cald {
namespace {

struct Block {
  std::size_t bytes;        // rounded
  std::size_t first, last;  // events between which it is alive
  std::size_t offset = 0;
};

std::vector<Block> lifetimes(const std::vector<MemoryEvent>& events) {
  std::vector<Block> blocks;
  for (std::size_t t = 0; t < events.size(); ++t) {
    const MemoryEvent& e = events[t];
    if (e.take)
      blocks.push_back({planned_size(e.bytes), t, events.size()});
    else
      blocks[static_cast<std::size_t>(e.id)].last = t;
  }
  return blocks;
}

/// The lowest gap that holds the block among those placed before it and alive at the same time; the tightest such gap
/// if `tightest`.
std::size_t find_gap(const Block& b, std::vector<std::pair<std::size_t, std::size_t>>& busy, bool tightest) {
  std::sort(busy.begin(), busy.end());
  std::size_t end = 0, best = SIZE_MAX, best_slack = SIZE_MAX;
  for (const auto& [from, to] : busy) {
    if (from >= end + b.bytes) {
      const std::size_t slack = from - end - b.bytes;
      if (!tightest) return end;
      if (slack < best_slack) best = end, best_slack = slack;
    }
    end = std::max(end, to);
  }
  return best != SIZE_MAX ? best : end;
}

std::size_t place(std::vector<Block>& blocks, const std::vector<std::size_t>& order, bool tightest) {
  std::vector<std::size_t> placed;  // by first event, so that a scan can stop early
  std::vector<std::pair<std::size_t, std::size_t>> busy;
  std::size_t top = 0;
  for (std::size_t i : order) {
    Block& b = blocks[i];
    busy.clear();
    for (std::size_t j : placed) {
      const Block& p = blocks[j];
      if (p.first < b.last && b.first < p.last && p.bytes) busy.emplace_back(p.offset, p.offset + p.bytes);
    }
    b.offset = find_gap(b, busy, tightest);
    top = std::max(top, b.offset + b.bytes);
    placed.push_back(i);
  }
  return top;
}

template <class Key>
std::vector<std::size_t> order_by(const std::vector<Block>& blocks, Key key) {
  std::vector<std::size_t> order(blocks.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return key(blocks[a]) > key(blocks[b]); });
  return order;
}

void find_peak(MemoryPlan& plan) {
  std::size_t live = 0;
  std::array<std::size_t, kMemClasses> by_class{};
  std::vector<MemClass> cls;
  for (std::size_t t = 0; t < plan.events.size(); ++t) {
    const MemoryEvent& e = plan.events[t];
    const std::size_t bytes = planned_size(e.bytes);
    if (!e.take) {
      live -= bytes;
      by_class[static_cast<std::size_t>(cls[static_cast<std::size_t>(e.id)])] -= bytes;
      continue;
    }
    cls.push_back(e.cls);
    live += bytes;
    by_class[static_cast<std::size_t>(e.cls)] += bytes;
    if (live > plan.lower_bound) {
      plan.lower_bound = live;
      plan.peak_event = t;
      plan.peak_by_class = by_class;
    }
  }
}

}  // namespace

bool fits_into(const MemoryPlan& larger, const std::vector<MemoryEvent>& events, MemoryPlan& plan) {
  if (events.size() != larger.events.size()) return false;
  for (std::size_t t = 0; t < events.size(); ++t) {
    const MemoryEvent &a = events[t], &b = larger.events[t];
    if (a.id != b.id || a.take != b.take || a.bytes > b.bytes) return false;
  }
  plan.events = events;
  plan.offsets = larger.offsets;
  plan.bytes = larger.bytes;
  find_peak(plan);
  return true;
}

MemoryPlan plan_memory(std::vector<MemoryEvent> events) {
  MemoryPlan plan;
  plan.events = std::move(events);
  find_peak(plan);
  std::vector<Block> blocks = lifetimes(plan.events);
  const auto by_size = order_by(blocks, [](const Block& b) { return b.bytes; });
  const auto by_area = order_by(blocks, [](const Block& b) { return b.bytes * (b.last - b.first); });
  const auto by_life = order_by(blocks, [](const Block& b) { return b.last - b.first; });
  plan.bytes = SIZE_MAX;
  for (const auto* order : {&by_size, &by_area, &by_life}) {
    for (bool tightest : {true, false}) {
      const std::size_t top = place(blocks, *order, tightest);
      if (top >= plan.bytes) continue;
      plan.bytes = top;
      plan.offsets.assign(blocks.size(), 0);
      for (std::size_t i = 0; i < blocks.size(); ++i) plan.offsets[i] = blocks[i].offset;
      if (plan.bytes == plan.lower_bound) return plan;
    }
  }
  return plan;
}

}  // namespace cald
