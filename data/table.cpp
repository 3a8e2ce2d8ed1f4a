#include "data/table.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/arrow.h"
#include "data/atomic_file.h"
#include "data/json_text.h"
#include "data/unicode.h"

namespace cald {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{4} << 30;

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

Table Table::read(const std::string& path, std::size_t* short_rows) {
  Table t;
  t.path_ = path;
  t.short_rows_ = short_rows;
  if (short_rows) *short_rows = 0;
  const bool arrow = path.ends_with(".arrow");  // which is mapped instead of read
  std::string text = arrow ? "" : read_text_file(path, kMaxFileBytes);
  if (text.compare(0, 3, "\xEF\xBB\xBF") == 0) text.erase(0, 3);  // a byte order mark is no part of a column's name
  if (path.ends_with(".tsv")) {
    t.read_tsv(text);
  } else if (path.ends_with(".csv")) {
    t.read_csv(text);
  } else if (path.ends_with(".jsonl")) {
    t.read_jsonl(text);
  } else if (arrow) {
    t.read_arrow_columns();
  } else {
    throw data_error(path, "the name must end in .tsv, .csv, .jsonl or .arrow, which says how to read it");
  }
  if (t.columns_.empty() || t.rows() == 0) throw data_error(path, "the file holds no examples");
  t.short_rows_ = nullptr;
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
  throw data_error(path_, "there is no column " + in_quotes(name) + "; the columns are " + known);
}

void Table::add_columns(std::size_t line, std::vector<std::string> names) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (find_utf8_fault(names[i])) throw data_error(at_line(line), "a column's name is broken UTF-8");
    if (std::find(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(i), names[i]) !=
        names.begin() + static_cast<std::ptrdiff_t>(i))
      throw data_error(at_line(line), "two columns have the name " + in_quotes(names[i]));
  }
  columns_ = std::move(names);
}

void Table::add_row(std::size_t line, std::vector<std::string> cells) {
  if (columns_.empty()) return add_columns(line, std::move(cells));
  if (cells.size() != columns_.size()) {
    if (short_rows_ && cells.size() < columns_.size()) {
      ++*short_rows_;
      return;
    }
    throw data_error(at_line(line), "has " + std::to_string(cells.size()) + " fields, wanted " +
                                        std::to_string(columns_.size()) + " as in the first line");
  }
  for (std::size_t i = 0; i < cells.size(); ++i) {
    if (const auto fault = find_utf8_fault(cells[i]))
      throw data_error(at_line(line), "broken UTF-8 in column " + in_quotes(columns_[i]) + ", byte " +
                                          std::to_string(fault->byte) + ": " + fault->what);
    cells_.push_back(std::move(cells[i]));
  }
  lines_.push_back(line);
}

void Table::read_tsv(const std::string& text) {
  for_each_line(text, [&](std::size_t line, const std::string& content) { add_row(line, split(content, '\t')); });
}

void Table::read_csv(const std::string& text) {
  enum class State { start, plain, quoted, closed };  // of the field that is being read
  std::vector<std::string> cells;
  std::string cell;
  State state = State::start;
  std::size_t line = 1, row_line = 1, quote_line = 0;
  const auto end_cell = [&] {
    cells.push_back(std::move(cell));
    cell.clear();
    state = State::start;
  };
  const auto end_row = [&] {
    const bool blank = cells.empty() && state == State::start;
    end_cell();
    if (!blank) add_row(row_line, std::move(cells));
    cells.clear();
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const char after = i + 1 < text.size() ? text[i + 1] : '\0';
    if (c == '\n') ++line;
    if (state == State::quoted) {
      if (c != '"') {
        cell += c;
      } else if (after == '"') {
        cell += text[++i];
      } else {
        state = State::closed;
      }
    } else if (c == ',') {
      end_cell();
    } else if (c == '\n') {
      end_row();
      row_line = line;
    } else if (c == '\r' && after == '\n') {
      continue;
    } else if (c == '"' && state == State::start) {
      state = State::quoted;
      quote_line = line;
    } else if (state == State::closed) {
      throw data_error(at_line(line), "a field goes on after its closing quote; quotes inside a field are doubled");
    } else {
      state = State::plain;
      cell += c;
    }
  }
  if (state == State::quoted) throw data_error(at_line(quote_line), "a quote opens here and is never closed");
  end_row();
}

void Table::read_jsonl(const std::string& text) {
  for_each_line(text, [&](std::size_t line, const std::string& content) {
    const nlohmann::json j = parse_json(at_line(line), content);
    if (!j.is_object()) throw data_error(at_line(line), "wanted a JSON object");
    if (columns_.empty())
      for (const auto& [key, value] : j.items()) columns_.push_back(key);
    std::vector<std::string> cells;
    for (const std::string& c : columns_) {
      const auto it = j.find(c);
      if (it == j.end())
        throw data_error(at_line(line), "the key " + in_quotes(c) + " is missing, which the first line has");
      if (it->is_null()) throw data_error(at_line(line), "the key " + in_quotes(c) + " is null");
      cells.push_back(it->is_string() ? it->get<std::string>() : it->dump());
    }
    add_row(line, std::move(cells));
  });
}

void Table::read_arrow_columns() {
  std::vector<ArrowColumn> columns = read_arrow(path_);
  for (const ArrowColumn& c : columns) columns_.push_back(c.name);
  const std::size_t rows = columns.empty() ? 0 : columns[0].values.size();
  for (std::size_t r = 0; r < rows; ++r) {
    for (ArrowColumn& c : columns) {
      if (!c.values[r]) throw data_error(at_line(r + 1), "the value of column " + in_quotes(c.name) + " is null");
      cells_.push_back(std::move(*c.values[r]));
    }
    lines_.push_back(r + 1);
  }
}

UsualColumns usual_columns(const Table& table) {
  static constexpr UsualColumns kUsual[] = {{"sentence", "sentence2"},
                                            {"sentence1", "sentence2"},
                                            {"question1", "question2"},
                                            {"question", "sentence"},
                                            {"premise", "hypothesis"},
                                            {"claim", "evidence"},
                                            {"sentence", ""},
                                            {"text", ""},
                                            {"sentence1", ""},
                                            {"question", ""},
                                            {"premise", ""}};
  for (const UsualColumns& c : kUsual)
    if (table.find_column(c.text) >= 0 && (c.pair[0] == '\0' || table.find_column(c.pair) >= 0)) return c;
  return {"sentence", ""};
}

}  // namespace cald
