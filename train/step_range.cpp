#include "train/step_range.h"

#include <charconv>

#include "engine/base/error.h"

namespace cald {

StepRange StepRange::parse(const std::string& text, const char* flag) {
  const auto number = [](std::string_view s, std::int64_t& n) {
    const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), n);
    return error == std::errc{} && end == s.data() + s.size();
  };
  StepRange r{0, 0};
  const std::size_t colon = text.find(':');
  bool good = number(std::string_view(text).substr(0, colon), r.first);
  if (colon == std::string::npos)
    r.last = r.first;
  else
    good = good && number(std::string_view(text).substr(colon + 1), r.last);
  if (!good || r.first < 1 || r.last < r.first || r.last - r.first >= kMost)
    throw usage_error("--" + std::string(flag) + " '" + text + "': wanted FIRST:LAST, steps counted from 1, at most " +
                      std::to_string(kMost) + " of them");
  return r;
}

}  // namespace cald
