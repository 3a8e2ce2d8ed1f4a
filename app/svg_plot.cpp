// Data coordinates to pixels, paths, ticks.
#include "app/svg_plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

#include "app/report_page.h"

namespace cald {

namespace {

constexpr double kWidth = 720, kHeight = 300, kLeft = 64, kRight = 16, kTop = 14, kBottom = 44;

std::string formatted(const char* format, double v) {
  std::array<char, 40> buffer;
  const int n = std::snprintf(buffer.data(), buffer.size(), format, v);
  return {buffer.data(), static_cast<std::size_t>(std::clamp(n, 0, 39))};
}

std::string pixel(double v) { return formatted("%.1f", v); }

std::string tick_text(double v) {
  std::string s = formatted("%.6g", v);
  if (const auto e = s.find('e'); e != std::string::npos) {
    if (s[e + 1] == '+') s.erase(e + 1, 1);
    const auto zero = s.find_first_of("0123456789", e);
    if (s[zero] == '0') s.erase(zero, 1);
  }
  return s;
}

/// One bin of a series: the mean, and the least and largest value.
struct Bin {
  double x, y, low, high;
};

std::vector<Bin> binned(const PlotSeries& series, const PlotOptions& o) {
  std::vector<Bin> all;
  for (const auto& [x, y] : series.points)
    if (std::isfinite(x) && std::isfinite(y) && (!o.log_y || y > 0)) all.push_back({x, y, y, y});
  if (o.bins == 0 || all.size() <= o.bins || series.marks) return all;
  std::vector<Bin> bins;
  for (std::size_t b = 0; b < o.bins; ++b) {
    const std::size_t from = b * all.size() / o.bins, to = (b + 1) * all.size() / o.bins;
    Bin bin{0, 0, std::numeric_limits<double>::max(), std::numeric_limits<double>::lowest()};
    for (std::size_t i = from; i < to; ++i) {
      bin.x += all[i].x / static_cast<double>(to - from);
      bin.y += all[i].y / static_cast<double>(to - from);
      bin.low = std::min(bin.low, all[i].y);
      bin.high = std::max(bin.high, all[i].y);
    }
    bins.push_back(bin);
  }
  return bins;
}

/// The plot's axes: ticks, and data to pixels.
class Axes {
 public:
  Axes(const std::vector<std::vector<Bin>>& all, const PlotOptions& o) : log_(o.log_y) {
    double x0 = std::numeric_limits<double>::max(), x1 = -x0, y0 = x0, y1 = -x0;
    bool whole = true;  // steps, layers: then ticks are whole numbers too
    for (const auto& series : all)
      for (const Bin& b : series) {
        x0 = std::min(x0, b.x);
        x1 = std::max(x1, b.x);
        whole = whole && b.x == std::floor(b.x);
        y0 = std::min(y0, b.low);
        y1 = std::max(y1, b.high);
      }
    if (o.from_zero && !log_) y0 = std::min(y0, 0.0);
    // Steps begin at 1, evaluations later: their axis still begins at 0.
    x_low_ = x0 > 0 && (x0 < 0.3 * x1 || x0 == x1) ? 0 : x0;
    x_high_ = x1 > x_low_ ? x1 : x_low_ + 1;
    y_ticks = log_ ? log_ticks(y0, y1) : linear_ticks(y0, y1);
    for (const double t : linear_ticks(x_low_, x_high_))
      if (t >= x_low_ && t <= x_high_ && (!whole || t == std::floor(t))) x_ticks.push_back(t);
  }
  double x(double v) const { return kLeft + (v - x_low_) / (x_high_ - x_low_) * (kWidth - kLeft - kRight); }
  double y(double v) const {
    const double low = scaled(y_ticks.front()), high = scaled(y_ticks.back());
    return kHeight - kBottom - (scaled(v) - low) / (high - low) * (kHeight - kTop - kBottom);
  }
  bool holds_x(double v) const { return v >= x_low_ && v <= x_high_; }
  std::vector<double> x_ticks, y_ticks;

 private:
  double scaled(double v) const { return log_ ? std::log10(v) : v; }
  bool log_;
  double x_low_ = 0, x_high_ = 1;
};

std::string text_at(double x, double y, const char* anchor, const std::string& text, const std::string& more = "") {
  return "<text x=\"" + pixel(x) + "\" y=\"" + pixel(y) + "\" text-anchor=\"" + anchor + "\"" + more + ">" +
         escape_html(text) + "</text>\n";
}

std::string line(double x1, double y1, double x2, double y2, const char* kind) {
  return std::string("<line class=\"") + kind + "\" x1=\"" + pixel(x1) + "\" y1=\"" + pixel(y1) + "\" x2=\"" +
         pixel(x2) + "\" y2=\"" + pixel(y2) + "\"/>\n";
}

std::string frame(const Axes& axes, const PlotOptions& o) {
  std::string out;
  const double bottom = kHeight - kBottom, right = kWidth - kRight;
  for (const double t : axes.y_ticks)
    out += line(kLeft, axes.y(t), right, axes.y(t), "grid") + text_at(kLeft - 8, axes.y(t) + 4, "end", tick_text(t));
  for (const double t : axes.x_ticks)
    out += line(axes.x(t), bottom, axes.x(t), bottom + 5, "axis") +
           text_at(axes.x(t), bottom + 18, "middle", tick_text(t));
  out += line(kLeft, bottom, right, bottom, "axis");
  out += text_at((kLeft + right) / 2, kHeight - 6, "middle", o.x_label, " class=\"label\"");
  const double middle = (kTop + bottom) / 2;
  out += text_at(14, middle, "middle", o.y_label + (o.log_y ? " (log)" : ""),
                 " class=\"label\" transform=\"rotate(-90 14 " + pixel(middle) + ")\"");
  return out;
}

std::string curve(const std::vector<Bin>& bins, const PlotSeries& s, const std::string& colour, const Axes& axes) {
  std::string path, upper, lower, out;
  bool band = false;
  for (std::size_t i = 0; i < bins.size(); ++i) {
    path += (i == 0 ? "M" : "L") + pixel(axes.x(bins[i].x)) + " " + pixel(axes.y(bins[i].y));
    upper += (i == 0 ? "M" : "L") + pixel(axes.x(bins[i].x)) + " " + pixel(axes.y(bins[i].high));
    const Bin& back = bins[bins.size() - 1 - i];
    lower += "L" + pixel(axes.x(back.x)) + " " + pixel(axes.y(back.low));
    band = band || bins[i].high > bins[i].low;
  }
  const std::string style = " style=\"--c:" + escape_html(colour) + "\"";
  if (band) out += "<path class=\"band\"" + style + " d=\"" + upper + lower + "Z\"/>\n";
  if (s.area) {
    const double bottom = axes.y(axes.y_ticks.front());
    out += "<path class=\"band\"" + style + " d=\"" + path + "L" + pixel(axes.x(bins.back().x)) + " " + pixel(bottom) +
           "L" + pixel(axes.x(bins.front().x)) + " " + pixel(bottom) + "Z\"/>\n";
  }
  out += std::string("<path class=\"curve") + (s.dashed ? " dashed" : "") + "\"" + style + " d=\"" + path + "\"/>\n";
  if (s.marks || bins.size() == 1)
    for (const Bin& b : bins)
      out += "<circle" + style + " cx=\"" + pixel(axes.x(b.x)) + "\" cy=\"" + pixel(axes.y(b.y)) +
             "\" r=\"3.2\"><title>" + escape_html(s.name + ": " + tick_text(b.y) + " at " + tick_text(b.x)) +
             "</title></circle>\n";
  return out;
}

std::string markers(const Axes& axes, const PlotOptions& o) {
  std::string out;
  for (const auto& [x, name] : o.markers) {
    if (!axes.holds_x(x)) continue;
    const bool at_right = axes.x(x) > kWidth / 2;
    out += line(axes.x(x), kTop, axes.x(x), kHeight - kBottom, "marker") +
           text_at(axes.x(x) + (at_right ? -6 : 6), kTop + 10, at_right ? "end" : "start", name, " class=\"halo\"");
  }
  return out;
}

std::string plot_svg(const std::vector<PlotSeries>& series, const PlotOptions& o) {
  std::vector<std::vector<Bin>> all;
  bool any = false;
  for (const PlotSeries& s : series) {
    all.push_back(binned(s, o));
    any = any || !all.back().empty();
  }
  if (!any) return "<p class=\"missing\">" + escape_html(o.log_y ? "No values above 0." : "No values.") + "</p>\n";
  const Axes axes(all, o);
  std::string out = "<svg viewBox=\"0 0 " + pixel(kWidth) + " " + pixel(kHeight) + "\" role=\"img\" aria-label=\"" +
                    escape_html(o.title) + "\">\n" + frame(axes, o);
  for (std::size_t i = 0; i < series.size(); ++i)
    if (!all[i].empty()) out += curve(all[i], series[i], series_colour(series[i].colour, i), axes);
  return out + markers(axes, o) + "</svg>\n";
}

std::string legend(const std::vector<PlotSeries>& series) {
  if (series.size() < 2) return "";
  std::string out = "<div class=\"legend\">";
  for (std::size_t i = 0; i < series.size(); ++i)
    out += std::string("<span><i class=\"") + (series[i].dashed ? "dashed" : "") +
           "\" style=\"--c:" + escape_html(series_colour(series[i].colour, i)) + "\"></i>" +
           escape_html(series[i].name) + "</span>";
  return out + "</div>\n";
}

std::string figure(const std::string& title, const std::string& inside) {
  return "<figure>\n<figcaption>" + escape_html(title) + "</figcaption>\n" + inside + "</figure>\n";
}

}  // namespace

std::vector<double> linear_ticks(double low, double high) {
  const double size = std::max(std::fabs(low), std::fabs(high));
  if (!(high - low > 1e-9 * size) || size < 1e-290) {
    const double around = size < 1e-280 ? 1 : size * 0.1;
    return linear_ticks(low - around, low + around);
  }
  const double rough = (high - low) / 5, power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= rough * 0.999) {
      step = factor * power;
      break;
    }
  std::vector<double> ticks;
  const double first = std::floor(low / step + 1e-9), last = std::ceil(high / step - 1e-9);
  for (double i = first; i <= last; ++i) ticks.push_back(i * step);
  return ticks;
}

std::vector<double> log_ticks(double low, double high) {
  const int from = std::max(-300, static_cast<int>(std::floor(std::log10(low))));
  const int to = std::min(300, static_cast<int>(std::ceil(std::log10(high))));
  const int decades = std::max(1, to - from), each = (decades + 7) / 8;
  std::vector<double> ticks;
  for (int d = from; d <= from + (decades + each - 1) / each * each; d += each) {
    ticks.push_back(std::pow(10.0, d));
    if (decades <= 2)
      for (const double factor : {2.0, 5.0}) ticks.push_back(factor * std::pow(10.0, d));
  }
  // Only what the data needs, with one tick beyond it on either side.
  while (ticks.size() > 2 && ticks[1] <= low) ticks.erase(ticks.begin());
  while (ticks.size() > 2 && ticks[ticks.size() - 2] >= high) ticks.pop_back();
  return ticks;
}

std::string ramp_colour(std::size_t i, std::size_t n) {
  const double t = n > 1 ? static_cast<double>(i) / static_cast<double>(n - 1) : 0;
  // Violet over green-blue to orange, of a lightness that is seen on white and on black.
  return "hsl(" + pixel(265 - 235 * t) + " 70% 47%)";
}

std::string line_plot(const std::vector<PlotSeries>& series, const PlotOptions& o) {
  return figure(o.title, plot_svg(series, o) + legend(series));
}

std::string line_plot_with_log_switch(const std::vector<PlotSeries>& series, PlotOptions o, const std::string& id) {
  std::string out = "<div class=\"axis-switch\">\n";
  const auto choice = [&](const char* kind, const char* text, const char* checked) {
    const std::string name = id + "-" + kind;
    return "<input type=\"radio\" name=\"" + id + "\" id=\"" + name + "\" class=\"" + kind + "\"" + checked +
           "><label for=\"" + name + "\">" + text + "</label>\n";
  };
  out += choice("linear", "linear axis", " checked") + choice("log", "log axis", "");
  o.log_y = false;
  out += "<div class=\"linear-plot\">" + plot_svg(series, o) + "</div>\n";
  o.log_y = true;
  out += "<div class=\"log-plot\">" + plot_svg(series, o) + "</div>\n</div>\n";
  return figure(o.title, out + legend(series));
}

}  // namespace cald
