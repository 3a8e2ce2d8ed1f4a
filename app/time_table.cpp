#include "app/time_table.h"

#include "app/text_table.h"

namespace cald {

std::string time_table(const KernelTimes& times, const Peak& peak) {
  const double total = times.total().seconds;
  TextTable table({"kernel", "calls", "seconds", "share", "rate", "of peak"});
  for (const auto& [name, row] : times.rows()) {
    const bool multiplies = row.cost.flop > 0;
    const double rate = (multiplies ? row.cost.flop : row.cost.bytes) / row.seconds;
    const double at_peak = multiplies ? peak.compute_seconds(row.cost) : row.cost.bytes / peak.bytes_per_s;
    char seconds[32], share[32], of_peak[32];
    std::snprintf(seconds, sizeof seconds, "%.3f s", row.seconds);
    std::snprintf(share, sizeof share, "%.1f %%", total > 0 ? 100 * row.seconds / total : 0.0);
    std::snprintf(of_peak, sizeof of_peak, "%.0f %%", 100 * at_peak / row.seconds);
    table.add_row({name, std::to_string(row.calls), seconds, share,
                   human_number(rate / 1e9) + (multiplies ? " GFLOP/s" : " GB/s"), of_peak});
  }
  return table.str() + "peak: " + peak.text() + ", measured after the run\n";
}

}  // namespace cald
