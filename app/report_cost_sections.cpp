// The sections about how a run was made and what it cost: conversion, memory plan, time, recipe.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "app/report_page.h"
#include "app/report_sections.h"
#include "app/svg_plot.h"
#include "app/text_table.h"
#include "train/option_io.h"

namespace cald {

namespace {

constexpr double kMebi = 1024.0 * 1024.0;

/// "layer.3.weight" as "layer.*.weight".
std::string without_numbers(const std::string& name) {
  std::string out;
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t end = std::min(name.find('.', at), name.size());
    const std::string part = name.substr(at, end - at);
    const bool number = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    out += (at > 0 ? "." : "") + (number ? "*" : part);
    at = end + 1;
  }
  return out;
}

/// Names that differ in a number only, such as the layers', as one: "encoder.layer.*.attention.self.E (6)".
std::string list_of(const std::vector<std::string>& names) {
  std::vector<std::pair<std::string, int>> groups;
  for (const std::string& name : names) {
    const std::string pattern = without_numbers(name);
    const auto known = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == pattern; });
    if (known == groups.end())
      groups.emplace_back(pattern, 1);
    else
      ++known->second;
  }
  std::string out;
  for (const auto& [pattern, n] : groups)
    out += (out.empty() ? "" : ", ") + pattern + (n > 1 ? " (" + std::to_string(n) + ")" : "");
  return out.empty() ? "none" : out;
}

std::string timeline_plot(const PlanData& plan) {
  PlotSeries use, peak;
  use.name = "in use";
  use.area = true;
  const auto n = static_cast<double>(plan.timeline.size());
  double highest = 0, at = 0;
  for (std::size_t i = 0; i < plan.timeline.size(); ++i) {
    const double x = n > 1 ? 100 * static_cast<double>(i) / (n - 1) : 0;
    use.points.emplace_back(x, plan.timeline[i] / kMebi);
    if (plan.timeline[i] > highest) {
      highest = plan.timeline[i];
      at = x;
    }
  }
  std::vector<PlotSeries> series{use};
  peak.name = "reserved";
  peak.dashed = true;
  peak.points = {{0, plan.peak / kMebi}, {100, plan.peak / kMebi}};
  series.push_back(peak);
  PlotOptions o;
  o.title = "Planned memory over one training step";
  o.x_label = "events of the step, %";
  o.y_label = "MiB";
  o.from_zero = true;
  o.bins = 0;
  o.markers = {{at, "peak" + (plan.peak_op.empty() ? "" : ": " + plan.peak_op)}};
  return line_plot(series, o);
}

std::string throughput_plot(const RunData& run) {
  PlotSeries s;
  s.name = "tokens per second";
  s.colour = "var(--s2)";
  for (const TimingRecord& t : run.timing)
    if (t.seconds > 0 && t.tokens > 0) s.points.emplace_back(t.step, t.tokens / t.seconds);
  PlotOptions o;
  o.title = "Tokens per second over the steps";
  o.x_label = "step";
  o.y_label = "tokens/s";
  o.from_zero = true;
  return s.points.empty() ? "" : line_plot({s}, o);
}

/// A setting's value as JSON shows it, texts without their quotation marks.
std::string value_text(const nlohmann::ordered_json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

}  // namespace

std::optional<double> resident_bytes(const RunData& run) {
  if (run.cost && run.cost->peak_resident_bytes) return run.cost->peak_resident_bytes;
  if (run.plan && run.plan->resident_peak) return run.plan->resident_peak;
  return std::nullopt;
}

std::optional<double> padding_share(const RunData& run) {
  double tokens = 0, positions = 0;
  for (const TimingRecord& t : run.timing) {
    tokens += t.tokens;
    positions += t.padded_tokens;
  }
  if (positions <= 0 || tokens > positions) return std::nullopt;
  return 1 - tokens / positions;
}

std::string conversion_section(const RunData& run) {
  if (!run.conversion) return "";
  const ConversionData& c = *run.conversion;
  HtmlTable table{{"tensors", "number", "which"}, {}, {false, true, false}, {}};
  table.rows = {{"copied", std::to_string(c.copied), "as they stand in the transformer"},
                {"mapped", std::to_string(c.mapped), c.mapped > 0 ? "under another name or in another shape" : ""},
                {"new", std::to_string(c.created.size()), list_of(c.created)},
                {"dropped", std::to_string(c.dropped.size()), list_of(c.dropped)}};
  return html_section("Conversion", html_table(table));
}

std::string memory_section(const RunData& run) {
  const std::string title = "Memory plan";
  if (!run.plan)
    return html_section(title, html_missing(run.directory + " has no plan.json, so the memory plan cannot be shown."));
  const PlanData& plan = *run.plan;
  double sum = 0;
  for (const auto& [name, bytes] : plan.bytes) sum += std::max(0.0, bytes);
  std::vector<BarPart> parts;
  for (const auto& [name, bytes] : plan.bytes)
    if (bytes > 0) parts.push_back({name, human_bytes(bytes), bytes / sum});
  std::string out = parts.empty() ? "" : html_bar(parts);
  HtmlTable table{{}, {}, {false, true}, {}};
  table.rows.push_back({"planned peak, known before step 1", human_bytes(plan.peak)});
  if (!plan.peak_op.empty())
    table.rows.push_back(
        {"where the peak lies", plan.peak_op + (plan.peak_phase.empty() ? "" : " of " + plan.peak_phase)});
  if (plan.arena) table.rows.push_back({"of it activations and workspace, as placed", human_bytes(*plan.arena)});
  if (plan.lower_bound) {
    table.rows.push_back({"lower bound for them: what is alive at once", human_bytes(*plan.lower_bound)});
    if (plan.arena && *plan.lower_bound > 0)
      table.rows.push_back({"placed above the lower bound", human_percent(*plan.arena / *plan.lower_bound - 1)});
  }
  if (plan.measured_arena) table.rows.push_back({"the run has used of them", human_bytes(*plan.measured_arena)});
  if (plan.resident_peak)
    table.rows.push_back({"measured peak of the process, program included", human_bytes(*plan.resident_peak)});
  out += html_table(table);
  if (!plan.timeline.empty()) out += timeline_plot(plan);
  return html_section(title, out);
}

std::string cost_section(const RunData& run) {
  const std::string title = "Cost";
  HtmlTable table{{}, {}, {false, true}, {}};
  const auto row = [&](const char* name, const std::string& text) { table.rows.push_back({name, text}); };
  if (run.cost) {
    const CostData& c = *run.cost;
    if (c.seconds_total) row("time in all", human_seconds(*c.seconds_total));
    if (c.seconds_per_step) row("time of a step", human_seconds(*c.seconds_per_step));
    if (c.tokens_per_second) row("tokens per second", human_number(*c.tokens_per_second));
    if (c.peak_resident_bytes) row("peak resident memory", human_bytes(*c.peak_resident_bytes));
  }
  if (const auto share = padding_share(run)) row("share of pads in the computed positions", human_percent(*share));
  std::string out = run.cost ? "" : html_missing(run.directory + " has no cost.json: the run has not ended yet.");
  if (!table.rows.empty()) out += html_table(table);
  if (!run.has_timing)
    out += html_missing(run.directory + " has no timing.jsonl, so the speed over the steps cannot be shown.");
  return html_section(title, out + throughput_plot(run));
}

std::string recipe_section(const RunData& run) {
  HtmlTable changed{{"setting", "value", "default", "meaning"}, {}, {}, {}}, all = changed;
  for (const auto& [key, value] : run.recipe.items()) {
    const auto& list = option_list();
    const auto info = std::find_if(list.begin(), list.end(), [&, &k = key](const OptionInfo& i) { return i.key == k; });
    const bool known = info != list.end();
    // Compared as the program would write it: 5e-05 in JSON is 5e-5 here.
    std::string text = value_text(value);
    if (known && value.is_number_float()) {
      RunOptions o;
      options_from_json(o, {{key, value.get<double>()}}, run.directory + "/recipe.json");
      text = option_text(o, key);
    }
    all.rows.push_back({key, text, known ? info->default_text : "", known ? info->help : "not known to this version"});
    if (!known || text != info->default_text) changed.rows.push_back(all.rows.back());
  }
  std::string out =
      html_paragraph("Run it again with --recipe " + run.directory + "/recipe.json and another --output.");
  out += changed.rows.empty() ? html_paragraph("Every setting has its default.") : html_table(changed);
  return html_section("Recipe", out + html_details("All settings", html_table(all)));
}

}  // namespace cald
