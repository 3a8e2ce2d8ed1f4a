// Tables of text with named columns: TSV, CSV, JSON lines and Arrow.
#pragma once
#include <string>
#include <vector>

namespace cald {

/// A table in memory, every value as text. Rows keep the line that they begin at, for errors.
class Table {
 public:
  /// Reads by the name's ending: .tsv (GLUE's: no quoting), .csv (RFC 4180: quotes, line feeds inside them), .jsonl (an
  /// object a line; the first line's keys are the columns, numbers and booleans become text), .arrow (what read_arrow()
  /// of data/arrow.h takes; its rows count as lines). The first line of .tsv
  /// and .csv names the columns. Empty lines are passed over. Errors name path:line: an empty file, a wrong number of
  /// fields, an open quote, broken UTF-8, a value that is missing or null. With `short_rows`, rows of too few fields
  /// are left out and counted there.
  static Table read(const std::string& path, std::size_t* short_rows = nullptr);

  const std::string& path() const { return path_; }
  const std::vector<std::string>& columns() const { return columns_; }
  std::size_t rows() const { return lines_.size(); }
  /// Index of a column, -1 if there is none.
  int find_column(const std::string& name) const;
  /// Index of a column; Error that lists those there are if it is missing.
  int column(const std::string& name) const;
  const std::string& at(std::size_t row, int column) const {
    return cells_[row * columns_.size() + static_cast<std::size_t>(column)];
  }
  /// "path:line" of a row.
  std::string where(std::size_t row) const { return at_line(lines_[row]); }

 private:
  void add_columns(std::size_t line, std::vector<std::string> names);
  void add_row(std::size_t line, std::vector<std::string> cells);
  std::string at_line(std::size_t line) const { return path_ + ":" + std::to_string(line); }
  void read_tsv(const std::string& text);
  void read_csv(const std::string& text);
  void read_jsonl(const std::string& text);
  void read_arrow_columns();

  std::string path_;
  std::size_t* short_rows_ = nullptr;  // during read() alone
  std::vector<std::string> columns_;
  std::vector<std::string> cells_;  // row-major
  std::vector<std::size_t> lines_;
};

/// Names of the columns that hold a text and, for pairs, its partner ("" where there is none).
struct UsualColumns {
  const char *text, *pair;
};

/// The first of these that the table has: sentence + sentence2 (as `cald prepare` writes pairs), sentence1 + sentence2,
/// question1 + question2, question + sentence, premise + hypothesis, claim + evidence; then sentence, text, sentence1,
/// question, premise alone. Without any of them: sentence, which the table then lacks.
UsualColumns usual_columns(const Table& table);

}  // namespace cald
