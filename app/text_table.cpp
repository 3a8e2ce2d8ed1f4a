// Widths are counted in code points, which is right for the names and units that occur here.
#include "app/text_table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "engine/base/error.h"

namespace cald {

namespace {

std::size_t width(const std::string& s) {
  return static_cast<std::size_t>(
      std::count_if(s.begin(), s.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

bool number_like(const std::string& s) {
  if (s.empty() || s == "-") return true;
  const std::size_t at = s[0] == '-' || s[0] == '+' ? 1 : 0;
  return at < s.size() && s[at] >= '0' && s[at] <= '9';
}

std::string fixed(double v, int decimals) {
  std::array<char, 64> buffer;
  const int n = std::snprintf(buffer.data(), buffer.size(), "%.*f", decimals, v);
  return {buffer.data(), static_cast<std::size_t>(std::clamp(n, 0, 63))};
}

/// Three significant digits of |v| < 1e15, without an exponent.
std::string three_digits(double v) {
  if (v == 0) return "0";
  std::array<char, 32> buffer;  // d.dde-XX: the exponent after rounding
  std::snprintf(buffer.data(), buffer.size(), "%.2e", v);
  const int exponent = std::atoi(std::strchr(buffer.data(), 'e') + 1);
  return fixed(v, std::clamp(2 - exponent, 0, 40));
}

std::string unknown_or(double v) { return std::isnan(v) ? "-" : v < 0 ? "-inf" : "inf"; }

std::string two_parts(double large, const char* large_unit, double small, const char* small_unit) {
  const std::string s = fixed(small, 0);
  return fixed(large, 0) + large_unit + (s.size() < 2 ? "0" : "") + s + small_unit;
}

}  // namespace

void TextTable::add_row(std::vector<std::string> cells) {
  if (cells.size() > header_.size())
    throw Error("table: got a row of " + std::to_string(cells.size()) + " cells, wanted at most " +
                std::to_string(header_.size()));
  cells.resize(header_.size());
  rows_.push_back(std::move(cells));
}

std::string TextTable::str() const {
  std::vector<std::size_t> widths;
  std::vector<bool> right;
  for (std::size_t c = 0; c < header_.size(); ++c) {
    widths.push_back(width(header_[c]));
    right.push_back(!rows_.empty());
    for (const auto& row : rows_) {
      widths[c] = std::max(widths[c], width(row[c]));
      right[c] = right[c] && number_like(row[c]);
    }
  }
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string out;
    for (std::size_t c = 0; c < cells.size(); ++c) {
      const std::string pad(widths[c] - width(cells[c]), ' ');
      out += (c > 0 ? "  " : "") + (right[c] ? pad + cells[c] : cells[c] + pad);
    }
    out.erase(out.find_last_not_of(' ') + 1);
    return out + "\n";
  };
  std::string out = line(header_);
  std::vector<std::string> rule;
  for (const std::size_t w : widths) rule.emplace_back(w, '-');
  out += line(rule);
  for (const auto& row : rows_) out += line(row);
  return out;
}

std::string human_bytes(double bytes) {
  if (!std::isfinite(bytes)) return unknown_or(bytes);
  constexpr std::array kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (std::fabs(bytes) >= 1023.5 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return (unit == 0 ? fixed(bytes, 0) : three_digits(bytes)) + " " + kUnits[unit];
}

std::string human_seconds(double seconds) {
  if (!std::isfinite(seconds)) return unknown_or(seconds);
  if (seconds < 0) return "-" + human_seconds(-seconds);
  if (seconds == 0) return "0 s";
  if (seconds < 9.995e-7) return three_digits(seconds * 1e9) + " ns";
  if (seconds < 9.995e-4) return three_digits(seconds * 1e6) + " us";
  if (seconds < 0.9995) return three_digits(seconds * 1e3) + " ms";
  if (seconds < 59.95) return three_digits(seconds) + " s";
  const double whole = std::round(seconds);
  if (whole < 3600) return two_parts(std::floor(whole / 60), " min ", std::fmod(whole, 60), " s");
  const double minutes = std::round(seconds / 60);
  return two_parts(std::floor(minutes / 60), " h ", std::fmod(minutes, 60), " min");
}

std::string human_number(double value) {
  if (!std::isfinite(value)) return unknown_or(value);
  double rounded = value;
  if (std::fabs(value) >= 1000) {
    const double unit = std::pow(10.0, std::floor(std::log10(std::fabs(value))) - 2);
    rounded = std::round(value / unit) * unit;
  }
  std::string s = three_digits(rounded);
  const std::size_t digits = s.find('.') == std::string::npos ? s.size() : s.find('.');
  const std::size_t sign = s[0] == '-' ? 1 : 0;
  if (digits - sign > 4)
    for (std::size_t at = digits; at > sign + 3;) s.insert(at -= 3, " ");
  return s;
}

std::string human_percent(double share) {
  return std::isfinite(share) ? fixed(100 * share, 2) + " %" : unknown_or(share);
}

}  // namespace cald
