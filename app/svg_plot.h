// Line plots as inline SVG: axes with round ticks, units, log axes, bands, marked points and a legend. Colours are CSS
// variables of the page, so that a plot follows light and dark.
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace cald {

struct PlotSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;  ///< (x, y); values that are not finite are left out
  std::string colour;                             ///< a CSS colour; empty: the page's next one
  bool marks = false;                             ///< a dot at each point
  bool dashed = false;
  bool area = false;  ///< filled down to the axis
};

struct PlotOptions {
  std::string title, x_label, y_label;
  bool log_y = false;      ///< y not above 0 is left out
  bool from_zero = false;  ///< the y axis begins at 0
  /// A longer series is drawn as the means of so many bins, with a band from least to largest; 0: never.
  std::size_t bins = 150;
  std::vector<std::pair<double, std::string>> markers;  ///< vertical lines: (x, name)
};

/// A figure with title, plot and legend. Without any point it says so.
std::string line_plot(const std::vector<PlotSeries>& series, const PlotOptions& options);

/// The same plot twice, with a switch between the linear and the log axis that needs no script. `id` is unique in the
/// page: letters and digits.
std::string line_plot_with_log_switch(const std::vector<PlotSeries>& series, PlotOptions options,
                                      const std::string& id);

/// The i-th of n colours for things that have an order, such as layers.
std::string ramp_colour(std::size_t i, std::size_t n);

/// Round positions of ticks that span [low, high]: the first is not above low, the last not below high.
std::vector<double> linear_ticks(double low, double high);
std::vector<double> log_ticks(double low, double high);

}  // namespace cald
