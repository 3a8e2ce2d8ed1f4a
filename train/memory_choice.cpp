#include "train/memory_choice.h"

#include <algorithm>

namespace cald {
namespace {

/// Each further part reads all weights and adds to all gradients once more, which costs about as much as the step's
/// work on so many tokens. Measured for MiniLM on AVX-512, batches of 32: parts of 1024 tokens cost nothing to speak
/// of, 32 parts of 128 tokens made a step 1.04 to 1.17 times as long (here 1.09), 32 parts of 32 tokens 1.4 times
/// (here 1.36).
constexpr double kTokensOfAPart = 12;

/// What it costs to bring a teacher's pages back in each pass, as a share of the step. Measured for RoBERTa-base,
/// batches of 8 x 128 tokens: 10 to 17 ms for 475 MiB in the system's cache, of a step of 4 to 10 s.
constexpr double kMappedTeacher = 0.005;

MemoryChoice choice_of(const MemoryBounds& b, const BytesOf& bytes, std::int64_t recompute, std::int64_t parts) {
  const double again = static_cast<double>(recompute) / static_cast<double>(std::max<std::int64_t>(1, b.layers));
  const double cut = kTokensOfAPart * static_cast<double>(parts - 1) / std::max(1.0, b.tokens);
  const double paging = b.map_teacher ? kMappedTeacher : 0.0;
  return {recompute, parts, b.map_teacher, bytes(recompute, parts), 1.0 + again / b.passes + cut + paging};
}

/// The numbers of parts worth a look: doubled until each is one example.
std::vector<std::int64_t> parts_of(const MemoryBounds& b) {
  std::vector<std::int64_t> parts{b.least_micro_batches};
  while (parts.back() < b.batch) parts.push_back(std::min(b.batch, 2 * parts.back()));
  return parts;
}

}  // namespace

std::vector<MemoryChoice> memory_trade(const MemoryBounds& b, const BytesOf& bytes) {
  std::vector<MemoryChoice> trade;
  for (const std::int64_t parts : parts_of(b)) {
    std::vector<std::int64_t> layers{b.least_recompute, std::max(b.least_recompute, b.layers / 2),
                                     std::max(b.least_recompute, b.layers)};
    layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
    for (const std::int64_t recompute : layers) trade.push_back(choice_of(b, bytes, recompute, parts));
  }
  return trade;
}

std::optional<MemoryChoice> fit_memory(const MemoryBounds& b, const BytesOf& bytes, std::size_t budget) {
  std::optional<MemoryChoice> best;
  for (const std::int64_t parts : parts_of(b)) {
    // One after another: a further layer that is computed again may also take more, where its own pass is the peak.
    for (std::int64_t layers = b.least_recompute; layers <= b.layers; ++layers) {
      const MemoryChoice found = choice_of(b, bytes, layers, parts);
      if (found.bytes > budget) continue;
      if (!best || found.time < best->time) best = found;
      break;
    }
  }
  return best;
}

}  // namespace cald
