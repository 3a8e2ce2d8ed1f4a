// Plots: ticks, where points lie, long series, values that cannot be drawn.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "app/svg_plot.h"

namespace cald {
namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(Plot, TicksAreRoundAndSpanTheData) {
  EXPECT_EQ(linear_ticks(0, 10), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(linear_ticks(62, 91), (std::vector<double>{60, 70, 80, 90, 100}));
  EXPECT_EQ(log_ticks(0.003, 40), (std::vector<double>{0.001, 0.01, 0.1, 1, 10, 100}));
  EXPECT_EQ(log_ticks(1.5, 6), (std::vector<double>{1, 2, 5, 10}));
  for (const auto& [low, high] : {std::pair{3.0, 3.0},
                                  {0.0, 0.0},
                                  {-2.0, -2.0},
                                  {1e-320, 1e-310},
                                  {-1e300, 1e300},
                                  {5.0, 5.0 + 1e-14},
                                  {0.1, 0.7}}) {
    const auto ticks = linear_ticks(low, high);
    ASSERT_GE(ticks.size(), 2u) << low << " " << high;
    EXPECT_LT(ticks.size(), 13u);
    EXPECT_LE(ticks.front(), low);
    EXPECT_GE(ticks.back(), high);
  }
  for (const auto& [low, high] : {std::pair{1.0, 1.0}, {1e-12, 1e5}, {4e-320, 1e-319}, {1e-300, 1e300}, {7.0, 8.0}}) {
    const auto ticks = log_ticks(low, high);
    ASSERT_GE(ticks.size(), 2u) << low << " " << high;
    EXPECT_LT(ticks.size(), 13u);
    EXPECT_GT(ticks.front(), 0);
    EXPECT_GE(ticks.back(), high);
  }
}

TEST(Plot, LongSeriesBecomeMeansWithABand) {
  PlotSeries s;
  s.name = "x";
  for (int i = 0; i < 1000; ++i) s.points.emplace_back(i, i % 2 == 0 ? 1 : 3);
  PlotOptions o;
  o.bins = 10;
  const std::string binned = line_plot({s}, o);
  EXPECT_TRUE(has(binned, "class=\"band\""));
  EXPECT_EQ(count(binned.substr(binned.find("class=\"curve\"")), "L"), 9u);
  o.bins = 0;
  const std::string whole = line_plot({s}, o);
  EXPECT_FALSE(has(whole, "class=\"band\""));
  EXPECT_EQ(count(whole.substr(whole.find("class=\"curve\"")), "L"), 999u);
}

TEST(Plot, LeavesOutWhatCannotBeDrawn) {
  PlotSeries s;
  s.name = "x";
  s.points = {{1, std::nan("")}, {2, INFINITY}, {3, -1}, {4, 0}};
  PlotOptions o;
  EXPECT_TRUE(has(line_plot({s}, o), "<svg"));
  EXPECT_FALSE(has(line_plot({s}, o), "nan"));
  EXPECT_FALSE(has(line_plot({s}, o), "inf"));
  o.log_y = true;
  EXPECT_TRUE(has(line_plot({s}, o), "No values above 0."));
  EXPECT_TRUE(has(line_plot({}, {}), "No values."));
}

TEST(Plot, PointsLieWhereTheAxesSay) {
  PlotSeries s;
  s.name = "x";
  s.points = {{0, 0}, {10, 10}};
  // Width 720 less 64 and 16, height 300 less 14 and 44: the corners of the frame.
  EXPECT_TRUE(has(line_plot({s}, {}), "d=\"M64.0 256.0L704.0 14.0\""));
  s.points = {{0, 1}, {5, 10}, {10, 100}};
  PlotOptions o;
  o.log_y = true;
  EXPECT_TRUE(has(line_plot({s}, o), "d=\"M64.0 256.0L384.0 135.0L704.0 14.0\""));
}

TEST(Plot, StepsBeginAtZeroAndHaveWholeTicks) {
  PlotSeries s;
  s.name = "x";
  const auto ticks = [&] {
    const std::string html = line_plot({s}, {});
    std::string found;  // the x axis' ticks stand at y = 274
    for (auto at = html.find("y=\"274.0\""); at != std::string::npos; at = html.find("y=\"274.0\"", at + 1)) {
      const auto from = html.find('>', at) + 1;
      found += html.substr(from, html.find('<', from) - from) + " ";
    }
    return found;
  };
  s.points = {{1, 0}, {2, 1}};
  EXPECT_EQ(ticks(), "1 2 ");
  s.points = {{12, 3}};
  EXPECT_EQ(ticks(), "0 5 10 ");
  s.points = {{60, 0}, {720, 1}};
  EXPECT_EQ(ticks(), "0 200 400 600 ");
  s.points = {{0.5, 0}, {1, 1}};
  EXPECT_EQ(ticks(), "0.5 0.6 0.7 0.8 0.9 1 ");
}

TEST(Plot, TheAxisSwitchHasBothPlots) {
  PlotSeries s;
  s.name = "x";
  s.points = {{0, 1}, {10, 10}};
  const std::string html = line_plot_with_log_switch({s}, {}, "id");
  EXPECT_EQ(count(html, "<svg"), 2u);
  EXPECT_TRUE(has(html, "class=\"linear-plot\"") && has(html, "class=\"log-plot\""));
  EXPECT_TRUE(has(html, "<label for=\"id-log\">"));
}

}  // namespace
}  // namespace cald
