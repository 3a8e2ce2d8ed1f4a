// The HTML around a report: page, sections, tables, cards; everything that comes from data is escaped here.
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace cald {

/// & < > " ' as entities; bytes that are not valid UTF-8 and control characters as U+FFFD.
std::string escape_html(const std::string& text);

/// The colour of the i-th series: its own, or the page's next one.
std::string series_colour(const std::string& own, std::size_t i);

struct HtmlTable {
  std::vector<std::string> header;             ///< empty: none
  std::vector<std::vector<std::string>> rows;  ///< plain texts
  std::vector<bool> right;                     ///< columns aligned to the right; missing: left
  std::vector<std::size_t> marked;             ///< rows that stand out
};
std::string html_table(const HtmlTable& table);

/// A number that a reader looks for first, with its name above and a remark below.
struct Card {
  std::string name, value, remark;
};
std::string html_cards(const std::vector<Card>& cards);

/// One bar of parts with a legend that has their sizes: (name, size as text, share of the whole 0..1).
struct BarPart {
  std::string name, size;
  double share = 0;
};
std::string html_bar(const std::vector<BarPart>& parts);

std::string html_paragraph(const std::string& text);
/// What stands in the place of a section's content if its file is missing.
std::string html_missing(const std::string& text);
/// `content` is HTML.
std::string html_section(const std::string& title, const std::string& content);
/// Shown after a click.
std::string html_details(const std::string& summary, const std::string& content);
/// The whole file: styles inside, nothing loaded from elsewhere, light or dark as the reader's system is.
std::string html_page(const std::string& title, const std::string& subtitle, const std::string& body);

}  // namespace cald
