#include "app/time_table.h"

#include "app/text_table.h"

namespace cald {
namespace {

/// The least time of all launches of `kernel`, or of all kernels if it is empty.
double least_seconds(const KernelTimes& times, const Peak& peak, const std::string& kernel) {
  double sum = 0;
  for (const auto& [key, row] : times.launches())
    if (kernel.empty() || key.kernel == kernel)
      sum += static_cast<double>(row.calls) * peak.least_seconds({key.flop, key.bytes, key.bf16_flop});
  return sum;
}

std::string fixed(double value, int decimals, const char* unit) {
  char text[48];
  std::snprintf(text, sizeof text, "%.*f%s", decimals, value, unit);
  return text;
}

}  // namespace

std::string time_table(const KernelTimes& times, const Peak& peak) {
  const double total = times.total().seconds;
  TextTable table({"kernel", "calls", "seconds", "share", "rate", "of peak"});
  for (const auto& [name, row] : times.rows()) {
    const bool multiplies = row.cost.flop > 0;
    const double rate = (multiplies ? row.cost.flop : row.cost.bytes) / row.seconds;
    table.add_row({name, std::to_string(row.calls), fixed(row.seconds, 3, " s"),
                   fixed(total > 0 ? 100 * row.seconds / total : 0.0, 1, " %"),
                   human_number(rate / 1e9) + (multiplies ? " GFLOP/s" : " GB/s"),
                   fixed(100 * least_seconds(times, peak, name) / row.seconds, 0, " %")});
  }
  return table.str() + "peak: " + peak.text() + ", measured after the run\n";
}

std::string roofline_table(const KernelTimes& times, const Peak& peak, std::int64_t steps, double step_seconds) {
  const auto n = static_cast<double>(steps);
  TextTable table({"kernel", "calls", "GFLOP", "GB", "at peak", "measured", "of peak", "share"});
  const auto add = [&](const std::string& name, const KernelTimes::Row& row, double least) {
    const auto calls = static_cast<double>(row.calls) / n;
    table.add_row({name, fixed(calls, 0, ""), fixed(row.cost.flop / n / 1e9, 2, ""),
                   fixed(row.cost.bytes / n / 1e9, 3, ""), fixed(1e3 * least / n, 2, " ms"),
                   fixed(1e3 * row.seconds / n, 2, " ms"), fixed(100 * least / row.seconds, 0, " %"),
                   fixed(100 * row.seconds / n / step_seconds, 1, " %")});
  };
  for (const auto& [name, row] : times.rows()) add(name, row, least_seconds(times, peak, name));
  add("all kernels", times.total(), least_seconds(times, peak, ""));
  const double outside = step_seconds - times.total().seconds / n;
  table.add_row({"outside of kernels", "", "", "", "", fixed(1e3 * outside, 2, " ms"), "",
                 fixed(100 * outside / step_seconds, 1, " %")});
  return table.str();
}

}  // namespace cald
