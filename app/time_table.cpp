#include "app/time_table.h"

#include <algorithm>
#include <vector>

#include "app/text_table.h"

namespace cald {

void TimeTable::launched(const char* kernel, const char*, const std::string&, double seconds) {
  Row& row = rows_[kernel];
  ++row.calls;
  row.seconds += seconds;
}

std::string TimeTable::text() const {
  std::vector<std::pair<std::string, Row>> sorted(rows_.begin(), rows_.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  double total = 0;
  for (const auto& [name, row] : sorted) total += row.seconds;
  TextTable table({"kernel", "calls", "seconds", "share"});
  for (const auto& [name, row] : sorted) {
    char seconds[32], share[32];
    std::snprintf(seconds, sizeof seconds, "%.3f s", row.seconds);
    std::snprintf(share, sizeof share, "%.1f %%", total > 0 ? 100 * row.seconds / total : 0.0);
    table.add_row({name, std::to_string(row.calls), seconds, share});
  }
  return table.str();
}

}  // namespace cald
