// Aligned tables for the terminal, and sizes, durations and shares as people read them.
#pragma once
#include <string>
#include <vector>

namespace cald {

/// Columns are as wide as their widest cell; a column whose cells all begin like a number (or are "-" or empty) is
/// aligned to the right. A cell that is not valid UTF-8 only costs the alignment.
class TextTable {
 public:
  explicit TextTable(std::vector<std::string> header) : header_(std::move(header)) {}
  /// Cells beyond the header's are an Error; missing ones are empty.
  void add_row(std::vector<std::string> cells);
  /// The header, a rule and the rows, each line ended by a line feed and without blanks before it.
  std::string str() const;

 private:
  std::vector<std::string> header_;
  std::vector<std::vector<std::string>> rows_;
};

/// 1536 -> "1.50 KiB"; three significant digits, at least bytes, at most TiB.
std::string human_bytes(double bytes);

/// 0.0123 -> "12.3 ms", 83 -> "1 min 23 s", 4000 -> "1 h 06 min".
std::string human_seconds(double seconds);

/// 15234.7 -> "15 200", 0.12345 -> "0.123": three significant digits.
std::string human_number(double value);

/// 0.9128 -> "91.28 %".
std::string human_percent(double share);

}  // namespace cald
