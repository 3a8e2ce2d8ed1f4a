// The sections about results: headline, table beside the paper's, losses, accuracy, distance to the teacher.
#include "app/report_sections.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "app/report_page.h"
#include "app/svg_plot.h"
#include "app/text_table.h"

namespace cald {

namespace {

std::string step_text(double step) { return human_number(step) == "-" ? "-" : std::to_string(std::llround(step)); }

std::string file_missing(const RunData& run, const char* file, const char* what) {
  return html_missing(run.directory + " has no " + file + ", so " + what + " cannot be shown.");
}

Points in_percent(const std::vector<EvalRecord>& evals) {
  Points points;
  for (const EvalRecord& e : evals) points.emplace_back(e.step, 100 * e.accuracy);
  return points;
}

std::vector<std::pair<double, std::string>> stop_marker(const RunData& run) {
  if (const auto step = hybrid_step(run)) return {{*step, "distillation ends"}};
  return {};
}

std::vector<PlotSeries> known_series(const RunData& run,
                                     const std::vector<std::pair<const char*, const char*>>& names) {
  std::vector<PlotSeries> series;
  for (const auto& [key, name] : names)
    if (const auto it = run.metrics.find(key); it != run.metrics.end()) {
      PlotSeries s;
      s.name = name;
      s.points = it->second;
      series.push_back(std::move(s));
    }
  return series;
}

/// Mean over the points of the i-th of `parts` equal pieces of a series.
double mean_of_part(const Points& points, std::size_t i, std::size_t parts) {
  const std::size_t from = std::min(i * points.size() / parts, points.size() - 1);
  const std::size_t to = std::max(from + 1, (i + 1) * points.size() / parts);
  double sum = 0;
  for (std::size_t k = from; k < to; ++k) sum += points[k].second;
  return sum / static_cast<double>(to - from);
}

}  // namespace

const std::vector<PaperFigure>& paper_figures() {
  static const std::vector<PaperFigure> figures{
      {"finetune", "teacher: the fine-tuned transformer", 95.3},
      {"unguided", "unguided", 83.6},
      {"target", "CALD, target", 93.3},
      {"trajectory", "CALD, trajectory", 94.0},
      {"waypoint", "CALD, waypoint", 93.7},
      {"hybrid", "CALD, hybrid", 91.4},
  };
  return figures;
}

std::string paper_text(const std::string& method) {
  for (const PaperFigure& f : paper_figures())
    if (method == f.method) return human_number(f.accuracy) + " %";
  return "-";
}

std::string paper_remark() {
  return "The paper's figures (He & Garner, ICLR 2025) are those of RoBERTa-base on SST-2, with Linformer as the "
         "mixer: "
         "another model and more data than a run of this program on a small machine. They are here for the differences "
         "between the rows, not to be compared number by number.";
}

std::string mode_text(const RunData& run) {
  const std::string mode = run.setting("mode"), stop = run.setting("hybrid-stop");
  return (mode.empty() ? "finetune" : mode) + (stop.empty() ? "" : ", distillation until " + stop);
}

std::optional<double> hybrid_step(const RunData& run) {
  const std::string stop = run.setting("hybrid-stop");
  if (stop.empty()) return std::nullopt;
  const double value = std::strtod(stop.c_str(), nullptr);
  if (stop.back() != '%') return value;
  const std::string steps = run.setting("steps");
  const double total = steps.empty() ? run.last_step() : std::strtod(steps.c_str(), nullptr);
  return std::floor(value / 100 * total + 0.5);
}

std::string headline(const RunData& run) {
  std::vector<Card> cards{{"mode", run.method(), mode_text(run) == run.method() ? "" : mode_text(run)}};
  if (const EvalRecord* best = run.best())
    cards.push_back({"accuracy on dev", human_percent(best->accuracy),
                     "best, at step " + step_text(best->step) +
                         (best->examples ? ", " + step_text(*best->examples) + " examples" : "")});
  else
    cards.push_back({"accuracy on dev", "-", "no evaluation in this run"});
  cards.push_back({"steps", step_text(run.last_step()), "batch size " + run.setting("batch-size")});
  if (run.cost && run.cost->seconds_total)
    cards.push_back({"time", human_seconds(*run.cost->seconds_total),
                     run.cost->tokens_per_second ? human_number(*run.cost->tokens_per_second) + " tokens/s" : ""});
  if (const auto bytes = resident_bytes(run)) cards.push_back({"peak memory", human_bytes(*bytes), "of the process"});
  return html_cards(cards);
}

std::string result_section(const RunData& run) {
  const EvalRecord* best = run.best();
  HtmlTable table{{"method", "this run", "paper: RoBERTa-base, SST-2"}, {}, {false, true, true}, {}};
  for (const PaperFigure& f : paper_figures()) {
    const bool mine = run.method() == f.method;
    if (mine) table.marked.push_back(table.rows.size());
    table.rows.push_back({f.name, mine && best ? human_percent(best->accuracy) : "", paper_text(f.method)});
  }
  std::string out = html_table(table) + html_paragraph(paper_remark());
  if (run.method() == "hybrid") out += html_paragraph("This run: " + mode_text(run) + ".");
  return html_section("Results", out);
}

std::string loss_section(const RunData& run) {
  if (!run.has_metrics)
    return html_section("Loss by term", file_missing(run, "metrics.jsonl", "losses and accuracies"));
  auto series = known_series(run, {{"loss", "loss (weighted sum)"},
                                   {"ce", "task loss (ce)"},
                                   {"kd", "output distillation (kd)"},
                                   {"ld", "layerwise distillation (ld)"},
                                   {"teacher_ce", "teacher's task loss"}});
  // Without a teacher the sum is the task loss.
  const bool one_term = !run.metrics.contains("kd") && !run.metrics.contains("ld") && run.metrics.contains("ce");
  if (one_term) std::erase_if(series, [](const PlotSeries& s) { return s.name.starts_with("loss"); });
  PlotOptions o;
  o.title = one_term ? "Training loss; the band shows the spread between steps"
                     : "Training loss, terms before their weights; the band shows the spread between steps";
  o.x_label = "step";
  o.y_label = "loss";
  o.markers = stop_marker(run);
  std::string out = line_plot_with_log_switch(series, o, "loss");
  auto rate = known_series(run, {{"learning_rate", "learning rate"}});
  if (!rate.empty()) {
    rate[0].colour = "var(--s4)";
    o.title = "Learning rate";
    o.y_label = "learning rate";
    o.from_zero = true;
    o.markers.clear();
    out += html_details("Learning rate over the steps", line_plot(rate, o));
  }
  return html_section("Loss by term", out);
}

std::string accuracy_section(const RunData& run) {
  if (!run.has_metrics) return html_section("Accuracy", file_missing(run, "metrics.jsonl", "accuracies"));
  if (run.evals.empty())
    return html_section("Accuracy",
                        html_missing("The run has no evaluation: it was given no dev data, or ended before."));
  PlotOptions o;
  o.title = "Accuracy on the dev data";
  o.x_label = "step";
  o.y_label = "accuracy, %";
  o.markers = stop_marker(run);
  PlotSeries s;
  s.name = "accuracy";
  s.points = in_percent(run.evals);
  s.marks = true;
  std::string out = line_plot({s}, o);
  HtmlTable table{{"step", "accuracy", "loss", "examples"}, {}, {true, true, true, true}, {}};
  for (const EvalRecord& e : run.evals) {
    if (&e == run.best()) table.marked.push_back(table.rows.size());
    table.rows.push_back({step_text(e.step), human_percent(e.accuracy), e.loss ? human_number(*e.loss) : "-",
                          e.examples ? step_text(*e.examples) : "-"});
  }
  return html_section("Accuracy", out + html_details("Every evaluation", html_table(table)));
}

std::string distance_section(const RunData& run) {
  const std::string title = "Distance to the teacher by layer";
  if (run.ld_by_state.empty())
    return html_section(title, html_missing("metrics.jsonl has no distances by state: the run has no layerwise "
                                            "distillation, or did not record them."));
  const bool embeddings = run.setting("ld-embeddings") != "false";
  const std::size_t n = run.ld_by_state.size();
  std::vector<PlotSeries> over_steps, over_states(3);
  HtmlTable table{{"state", "first tenth of the steps", "last tenth"}, {}, {false, true, true}, {}};
  over_states[0].name = "first tenth of the steps";
  over_states[1].name = "middle";
  over_states[2].name = "last tenth";
  for (std::size_t i = 0; i < n; ++i) {
    const Points& points = run.ld_by_state[i];
    const std::size_t number = embeddings ? i : i + 1;
    const std::string name = number == 0 ? "embeddings" : "layer " + std::to_string(number);
    PlotSeries s;
    s.name = name;
    s.points = points;
    s.colour = ramp_colour(i, n);
    over_steps.push_back(std::move(s));
    const double first = mean_of_part(points, 0, 10), last = mean_of_part(points, 9, 10);
    over_states[0].points.emplace_back(number, first);
    over_states[1].points.emplace_back(number, mean_of_part(points, 4, 9));
    over_states[2].points.emplace_back(number, last);
    table.rows.push_back({name, human_number(first), human_number(last)});
  }
  for (PlotSeries& s : over_states) s.marks = true;
  PlotOptions o;
  o.title = "Squared error of the hidden states, layer by layer, over the steps";
  o.x_label = "step";
  o.y_label = "mean squared error";
  o.markers = stop_marker(run);
  std::string out = line_plot_with_log_switch(over_steps, o, "distance");
  o.title = "The same by depth";
  o.x_label = "state (0: embeddings, then after each layer)";
  o.markers.clear();
  out += line_plot_with_log_switch(over_states, o, "depth");
  return html_section(title, out + html_details("As a table", html_table(table)));
}

}  // namespace cald
