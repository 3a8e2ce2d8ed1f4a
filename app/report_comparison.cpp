// Several runs on one page.
#include <algorithm>
#include <cmath>
#include <set>

#include "app/report.h"
#include "app/report_page.h"
#include "app/report_sections.h"
#include "app/run_data.h"
#include "app/svg_plot.h"
#include "app/text_table.h"
#include "data/atomic_file.h"
#include "engine/base/error.h"

namespace cald {

namespace {

using Runs = std::vector<RunData>;

std::string or_dash(const std::optional<double>& value, std::string (*text)(double)) {
  return value ? text(*value) : "-";
}

const RunData* first_of(const Runs& runs, const char* method) {
  for (const RunData& run : runs)
    if (run.method() == method && run.best()) return &run;
  return nullptr;
}

/// How much of the way from unguided conversion up to the teacher a run has gone; "-" where that has no meaning.
std::string gap_closed(const Runs& runs, const RunData& run) {
  const RunData *teacher = first_of(runs, "finetune"), *unguided = first_of(runs, "unguided");
  if (!teacher || !unguided || !run.best() || &run == teacher || &run == unguided) return "-";
  const double low = unguided->best()->accuracy, high = teacher->best()->accuracy;
  return high > low ? human_percent((run.best()->accuracy - low) / (high - low)) : "-";
}

std::string results(const Runs& runs) {
  HtmlTable table{{"run", "mode", "accuracy", "best step", "gap closed", "paper: RoBERTa-base, SST-2"},
                  {},
                  {false, false, true, true, true, true},
                  {}};
  const RunData* best = nullptr;
  for (const RunData& run : runs)
    if (run.method() != "finetune" && run.best() && (!best || run.best()->accuracy > best->best()->accuracy))
      best = &run;
  for (const RunData& run : runs) {
    const EvalRecord* e = run.best();
    if (&run == best) table.marked.push_back(table.rows.size());
    table.rows.push_back({run.name, mode_text(run), e ? human_percent(e->accuracy) : "-",
                          e ? std::to_string(std::llround(e->step)) : "-", gap_closed(runs, run),
                          paper_text(run.method())});
  }
  return html_section("Results", html_table(table) +
                                     html_paragraph("Gap closed: the share of the distance from the unguided "
                                                    "conversion up to the fine-tuned transformer. The marked row is "
                                                    "the best conversion.") +
                                     html_paragraph(paper_remark()));
}

std::string costs(const Runs& runs) {
  HtmlTable table{{"run", "time", "time of a step", "tokens/s", "peak memory of the process", "planned peak", "pads"},
                  {},
                  {false, true, true, true, true, true, true},
                  {}};
  for (const RunData& run : runs) {
    const CostData cost = run.cost.value_or(CostData{});
    table.rows.push_back({run.name, or_dash(cost.seconds_total, human_seconds),
                          or_dash(cost.seconds_per_step, human_seconds), or_dash(cost.tokens_per_second, human_number),
                          or_dash(resident_bytes(run), human_bytes), run.plan ? human_bytes(run.plan->peak) : "-",
                          or_dash(padding_share(run), human_percent)});
  }
  return html_section("Cost", html_table(table));
}

std::string curves(const Runs& runs) {
  std::vector<PlotSeries> accuracy, loss;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    PlotSeries s;
    s.name = runs[i].name;
    s.colour = series_colour("", i);
    s.dashed = runs[i].method() == "finetune";
    PlotSeries l = s;
    s.marks = true;
    for (const EvalRecord& e : runs[i].evals) s.points.emplace_back(e.step, 100 * e.accuracy);
    if (!s.points.empty()) accuracy.push_back(s);
    const auto& metrics = runs[i].metrics;
    if (const auto ce = metrics.find("ce"); ce != metrics.end()) l.points = ce->second;
    if (!l.points.empty()) loss.push_back(l);
  }
  PlotOptions o;
  o.title = "Accuracy on the dev data (dashed: the fine-tuned transformer)";
  o.x_label = "step";
  o.y_label = "accuracy, %";
  std::string out = accuracy.empty() ? html_missing("No run has an evaluation.") : line_plot(accuracy, o);
  o.title = "Task loss on the training data";
  o.y_label = "cross-entropy";
  o.bins = 60;
  if (!loss.empty()) out += line_plot_with_log_switch(loss, o, "ce");
  return html_section("Accuracy and loss over the steps", out);
}

std::string differences(const Runs& runs) {
  std::vector<std::string> keys;
  for (const RunData& run : runs)
    for (const auto& [key, value] : run.recipe.items())
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
  HtmlTable table;
  table.header = {"setting"};
  for (const RunData& run : runs) table.header.push_back(run.name);
  for (const std::string& key : keys) {
    std::vector<std::string> row{key};
    std::set<std::string> values;
    for (const RunData& run : runs) {
      row.push_back(run.setting(key).empty() ? "-" : run.setting(key));
      values.insert(row.back());
    }
    if (values.size() > 1) table.rows.push_back(row);
  }
  return html_section("Settings that differ", table.rows.empty() ? html_paragraph("None.") : html_table(table));
}

}  // namespace

void write_comparison(const std::vector<std::string>& directories, const std::string& output) {
  if (directories.empty()) throw usage_error("no run directory is given, wanted at least one to compare");
  Runs runs;
  for (const std::string& directory : directories) runs.push_back(read_run(directory));
  std::set<std::string> names;
  bool all_different = true;
  for (const RunData& run : runs) all_different = names.insert(run.name).second && all_different;
  if (!all_different)
    for (RunData& run : runs) run.name = run.directory;
  const std::string body = results(runs) + curves(runs) + costs(runs) + differences(runs);
  write_file_atomically(output, html_page("cald: conversions compared", std::to_string(runs.size()) + " runs", body));
}

}  // namespace cald
