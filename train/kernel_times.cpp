#include "train/kernel_times.h"

#include <algorithm>

namespace cald {

void KernelTimes::launched(const Launch& l) {
  launches_[{l.kernel, l.cost.flop, l.cost.bytes, l.cost.bf16_flop}] += {1, l.seconds(), l.cost};
}

std::vector<std::pair<std::string, KernelTimes::Row>> KernelTimes::rows() const {
  std::vector<std::pair<std::string, Row>> rows;
  for (const auto& [key, row] : launches_) {
    if (rows.empty() || rows.back().first != key.kernel) rows.emplace_back(key.kernel, Row{});
    rows.back().second += row;
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  return rows;
}

KernelTimes::Row KernelTimes::total() const {
  Row sum;
  for (const auto& [key, row] : launches_) sum += row;
  return sum;
}

}  // namespace cald
