// Numbers and points of a run as texts that read back exactly.
#include "train/option_codec.h"

#include <array>

namespace cald {

std::string shortest_text(double v) {
  std::array<char, 32> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), v).ptr;
  std::string s(buffer.data(), end);
  // 5e-05 is what the library writes; nobody types the zero.
  if (const auto e = s.find('e'); e != std::string::npos && e + 2 < s.size() && s[e + 2] == '0') s.erase(e + 2, 1);
  if (const auto e = s.find("e+"); e != std::string::npos) s.erase(e + 1, 1);
  return s;
}

bool parse_finite(std::string_view s, double& out) {
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), out);
  return error == std::errc() && end == s.data() + s.size() && std::isfinite(out);
}

bool OptionCodec<StepOrShare>::parse(const std::string& s, StepOrShare& out) {
  if (s.empty() || s.back() != '%') {
    std::int64_t steps = 0;
    if (!OptionCodec<std::int64_t>::parse(s, steps)) return false;
    out = {static_cast<double>(steps), false};
    return true;
  }
  const std::string number = s.substr(0, s.size() - 1);
  double percent = 0;
  if (!parse_finite(number, percent) || number.find_first_of("eE") != std::string::npos) return false;
  out.is_share = true;
  // Read as one decimal number, so that no rounding of a division comes in.
  return parse_finite(number + "e-2", out.value);
}

std::string OptionCodec<StepOrShare>::text(const StepOrShare& v) {
  if (!v.is_share) return std::to_string(static_cast<std::int64_t>(v.value));
  std::array<char, 32> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), v.value, std::chars_format::scientific);
  std::string digits(buffer.data(), end.ptr);  // d.ddde-XX; 100 times that is written by moving the point
  const std::string sign = digits[0] == '-' ? "-" : "";
  const auto e = digits.find('e');
  int point = std::stoi(digits.substr(e + 1)) + 2 + 1;  // digits before the point
  digits.resize(e);
  std::erase_if(digits, [](char c) { return c == '.' || c == '-'; });
  if (v.value == 0) return "0%";
  if (point <= 0) {
    digits.insert(0, static_cast<std::size_t>(1 - point), '0');
    point = 1;
  }
  const auto before = static_cast<std::size_t>(point);
  if (digits.size() < before) digits.append(before - digits.size(), '0');
  return sign + digits.substr(0, before) + (digits.size() > before ? "." + digits.substr(before) : "") + "%";
}

}  // namespace cald
