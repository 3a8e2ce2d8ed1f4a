// Escaping, and the pieces of a page.
#include "app/report_page.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "app/report_style.h"

namespace cald {

namespace {

/// Length in bytes of the UTF-8 character at `at`; 0 if there is none.
std::size_t utf8_length(const std::string& s, std::size_t at) {
  const auto byte = [&](std::size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0u; };
  const unsigned first = byte(at);
  if (first < 0x80) return 1;
  const std::size_t n = first >= 0xF0 && first <= 0xF4 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 0;
  if (first > 0xF4) return 0;
  for (std::size_t i = 1; i < n; ++i)
    if ((byte(at + i) & 0xC0) != 0x80) return 0;
  const unsigned second = byte(at + 1);
  const bool overlong = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
  const bool outside = (first == 0xED && second >= 0xA0) || (first == 0xF4 && second >= 0x90);
  return overlong || outside ? 0 : n;
}

std::string per_cent(double share) {
  std::array<char, 32> buffer;
  std::snprintf(buffer.data(), buffer.size(), "%.3f%%", 100 * std::clamp(share, 0.0, 1.0));
  return buffer.data();
}

std::string cell(const char* tag, const std::string& text, bool right) {
  return std::string("<") + tag + (right ? " class=\"right\">" : ">") + escape_html(text) + "</" + tag + ">";
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t n = utf8_length(text, i);
    const char c = text[i];
    const auto u = static_cast<unsigned char>(c);
    if (n == 0 || (u < 32 && c != '\n' && c != '\t') || u == 127) {
      out += "\xEF\xBF\xBD";
    } else if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else if (c == '\'') {
      out += "&#39;";
    } else {
      out += text.substr(i, n);
    }
    i += std::max<std::size_t>(n, 1);
  }
  return out;
}

std::string series_colour(const std::string& own, std::size_t i) {
  return own.empty() ? "var(--s" + std::to_string(i % kPageColours) + ")" : own;
}

std::string html_table(const HtmlTable& table) {
  const auto right = [&](std::size_t column) { return column < table.right.size() && table.right[column]; };
  std::string out = "<div class=\"scroll\"><table>\n";
  if (!table.header.empty()) {
    out += "<thead><tr>";
    for (std::size_t c = 0; c < table.header.size(); ++c) out += cell("th", table.header[c], right(c));
    out += "</tr></thead>\n";
  }
  out += "<tbody>\n";
  for (std::size_t r = 0; r < table.rows.size(); ++r) {
    const bool marked = std::find(table.marked.begin(), table.marked.end(), r) != table.marked.end();
    out += marked ? "<tr class=\"marked\">" : "<tr>";
    for (std::size_t c = 0; c < table.rows[r].size(); ++c) out += cell("td", table.rows[r][c], right(c));
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

std::string html_cards(const std::vector<Card>& cards) {
  std::string out = "<div class=\"cards\">\n";
  for (const Card& card : cards)
    out += "<div class=\"card\"><span class=\"name\">" + escape_html(card.name) + "</span><b>" +
           escape_html(card.value) + "</b><span class=\"remark\">" + escape_html(card.remark) + "</span></div>\n";
  return out + "</div>\n";
}

std::string html_bar(const std::vector<BarPart>& parts) {
  std::string bar, legend;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::string colour = "style=\"--c:" + series_colour("", i);
    bar += "<i " + colour + ";width:" + per_cent(parts[i].share) + "\"></i>";
    legend += "<span><i class=\"box\" " + colour + "\"></i>" + escape_html(parts[i].name) + " <b>" +
              escape_html(parts[i].size) + "</b></span>";
  }
  return "<div class=\"bar\">" + bar + "</div>\n<div class=\"legend\">" + legend + "</div>\n";
}

std::string html_paragraph(const std::string& text) { return "<p>" + escape_html(text) + "</p>\n"; }

std::string html_missing(const std::string& text) { return "<p class=\"missing\">" + escape_html(text) + "</p>\n"; }

std::string html_section(const std::string& title, const std::string& content) {
  return "<section>\n<h2>" + escape_html(title) + "</h2>\n" + content + "</section>\n";
}

std::string html_details(const std::string& summary, const std::string& content) {
  return "<details><summary>" + escape_html(summary) + "</summary>\n" + content + "</details>\n";
}

std::string html_page(const std::string& title, const std::string& subtitle, const std::string& body) {
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
         escape_html(title) + "</title>\n<style>\n" + kPageStyle + "</style>\n</head>\n<body>\n<main>\n<header><h1>" +
         escape_html(title) + "</h1>\n<p>" + escape_html(subtitle) + "</p></header>\n" + body +
         "</main>\n</body>\n</html>\n";
}

}  // namespace cald
