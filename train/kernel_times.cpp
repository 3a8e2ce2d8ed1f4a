#include "train/kernel_times.h"

#include <algorithm>

namespace cald {

std::vector<std::pair<std::string, KernelTimes::Row>> KernelTimes::rows() const {
  std::vector<std::pair<std::string, Row>> sorted(rows_.begin(), rows_.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  return sorted;
}

KernelTimes::Row KernelTimes::total() const {
  Row sum;
  for (const auto& [name, row] : rows_) sum += row;
  return sum;
}

}  // namespace cald
