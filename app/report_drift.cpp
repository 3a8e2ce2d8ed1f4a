// The section about how far hidden states moved over a fine-tuning run.
#include "app/report_page.h"
#include "app/report_sections.h"
#include "app/svg_plot.h"
#include "app/text_table.h"

namespace cald {

std::string drift_section(const RunData& run) {
  const DriftCurve& curve = run.drift;
  if (curve.steps.size() < 2) return "";  // only runs that were asked to measure it have this section
  const std::size_t states = curve.by_state.front().size();
  std::vector<PlotSeries> series;
  HtmlTable table{{"step"}, {}, {true}, {}};
  for (std::size_t i = 0; i < states; ++i) {
    PlotSeries s;
    s.name = i == 0 ? "embeddings" : "layer " + std::to_string(i);
    s.colour = ramp_colour(i, states);
    s.marks = true;
    for (std::size_t m = 0; m < curve.steps.size(); ++m)
      s.points.emplace_back(static_cast<double>(curve.steps[m]), curve.by_state[m][i]);
    table.header.push_back(s.name);
    table.right.push_back(true);
    series.push_back(std::move(s));
  }
  for (std::size_t m = 0; m < curve.steps.size(); ++m) {
    table.rows.push_back({std::to_string(curve.steps[m])});
    for (const double d : curve.by_state[m]) table.rows.back().push_back(human_number(d));
  }
  PlotOptions o;
  o.title = "Mean squared difference of the LayerNorm'd hidden states from step 0, on held-out inputs";
  o.x_label = "step";
  o.y_label = "drift";
  std::string out;
  if (curve.ended() && curve.has_moved()) {
    const double half = curve.step_of(0.5);
    o.markers = {{half, "half of the drift"}};
    out = html_paragraph("Half of the final drift was reached after " + human_number(half) + " of " +
                         std::to_string(curve.steps.back()) + " steps; " + human_percent(curve.share_within(0.05)) +
                         " of it within the first 5 % of the steps, so mode " + curve.mode() +
                         " suits. A hybrid stop would lie at " + human_percent(curve.hybrid_stop().value) +
                         " of the steps.");
  }
  return html_section("Drift by layer", line_plot_with_log_switch(series, o, "drift") + out +
                                            html_details("As a table", html_table(table)));
}

}  // namespace cald
