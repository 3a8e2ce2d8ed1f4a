#include "data/table.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/atomic_file.h"
#include "data/json_text.h"
#include "data/unicode.h"

namespace cald {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{4} << 30;

bool ends_with(const std::string& s, const char* tail) {
  const std::string t = tail;
  return s.size() >= t.size() && s.compare(s.size() - t.size(), t.size(), t) == 0;
}

/// Calls f(line number from 1, line without its end) for every line that is not empty.
template <class F>
void for_each_line(const std::string& text, F f) {
  std::size_t number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::size_t last = end;
    if (last > at && text[last - 1] == '\r') --last;
    ++number;
    if (last > at) f(number, text.substr(at, last - at));
    at = end + 1;
  }
}

std::vector<std::string> split(const std::string& line, char by) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= line.size();) {
    const std::size_t end = std::min(line.find(by, at), line.size());
    parts.push_back(line.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

}  // namespace

Table Table::read(const std::string& path) {
  Table t;
  t.path_ = path;
  std::string text = read_text_file(path, kMaxFileBytes);
  if (text.compare(0, 3, "\xEF\xBB\xBF") == 0) text.erase(0, 3);  // a byte order mark is no part of a column's name
  if (ends_with(path, ".tsv"))
    t.read_tsv(text);
  else if (ends_with(path, ".csv"))
    t.read_csv(text);
  else if (ends_with(path, ".jsonl"))
    t.read_jsonl(text);
  else
    throw data_error(path, "the name must end in .tsv, .csv or .jsonl, which says how to read it");
  if (t.columns_.empty() || t.rows() == 0) throw data_error(path, "the file holds no examples");
  return t;
}

int Table::find_column(const std::string& name) const {
  const auto it = std::find(columns_.begin(), columns_.end(), name);
  return it == columns_.end() ? -1 : static_cast<int>(it - columns_.begin());
}

int Table::column(const std::string& name) const {
  const int i = find_column(name);
  if (i >= 0) return i;
  std::string known;
  for (const std::string& c : columns_) known += (known.empty() ? "" : ", ") + in_quotes(c);
  throw data_error(path_, "there is no column '" + name + "'; the columns are " + known);
}

void Table::add_row(std::size_t line, std::vector<std::string> cells) {
  const std::string where = path_ + ":" + std::to_string(line);
  if (columns_.empty()) {
    columns_ = std::move(cells);
    return;
  }
  if (cells.size() != columns_.size())
    throw data_error(
        where, "has " + std::to_string(cells.size()) + " fields, the columns are " + std::to_string(columns_.size()));
  for (std::string& cell : cells) {
    if (const auto fault = find_utf8_fault(cell))
      throw data_error(where, "broken UTF-8 at byte " + std::to_string(fault->byte) + " of a field: " + fault->what);
    cells_.push_back(std::move(cell));
  }
  lines_.push_back(line);
}

void Table::read_tsv(const std::string& text) {
  for_each_line(text, [&](std::size_t line, const std::string& content) { add_row(line, split(content, '\t')); });
}

void Table::read_csv(const std::string& text) {
  std::vector<std::string> cells;
  std::string cell;
  std::size_t line = 1, row_line = 1, quote_line = 0;
  bool quoted = false, any = false;
  const auto end_row = [&] {
    if (any) {
      cells.push_back(std::move(cell));
      add_row(row_line, std::move(cells));
    }
    cells = {};
    cell.clear();
    any = false;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n') ++line;
    if (quoted) {
      if (c != '"')
        cell += c;
      else if (i + 1 < text.size() && text[i + 1] == '"')
        cell += text[++i];
      else
        quoted = false;
    } else if (c == '"' && cell.empty()) {
      quoted = any = true;
      quote_line = line;
    } else if (c == ',') {
      any = true;
      cells.push_back(std::move(cell));
      cell.clear();
    } else if (c == '\n') {
      end_row();
      row_line = line;
    } else if (c != '\r' || i + 1 >= text.size() || text[i + 1] != '\n') {
      any = true;
      cell += c;
    }
  }
  if (quoted) throw data_error(path_ + ":" + std::to_string(quote_line), "a quote opens here and is never closed");
  end_row();
}

void Table::read_jsonl(const std::string& text) {
  for_each_line(text, [&](std::size_t line, const std::string& content) {
    const std::string where = path_ + ":" + std::to_string(line);
    const nlohmann::json j = parse_json(where, content);
    if (!j.is_object()) throw data_error(where, "wanted a JSON object");
    if (columns_.empty())
      for (const auto& [key, value] : j.items()) columns_.push_back(key);
    std::vector<std::string> cells;
    for (const std::string& c : columns_) {
      const auto it = j.find(c);
      if (it == j.end()) throw data_error(where, "key '" + c + "' is missing, which the first line has");
      cells.push_back(it->is_string() ? it->get<std::string>() : it->dump());
    }
    add_row(line, std::move(cells));
  });
}

}  // namespace cald
