#include "train/progress.h"

#include <unistd.h>

namespace cald {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point a, Clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

std::string short_time(double seconds) {
  const auto s = static_cast<long>(seconds + 0.5);
  char text[32];
  if (s < 3600)
    std::snprintf(text, sizeof text, "%ld:%02ld", s / 60, s % 60);
  else
    std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
  return text;
}

}  // namespace

Progress::Progress(std::FILE* out) : out_(out), terminal_(isatty(fileno(out)) == 1), start_(Clock::now()) {}

void Progress::say(const std::string& line) {
  if (line_open_) std::fputc('\n', out_);
  line_open_ = false;
  std::fprintf(out_, "%s\n", line.c_str());
  std::fflush(out_);
}

void Progress::step(std::int64_t step, std::int64_t total, const StepLosses& l, double tokens_per_second) {
  const auto now = Clock::now();
  if (first_step_ < 0) {
    first_step_ = step - 1;
    start_ = now;
  }
  const double interval = terminal_ ? 0.2 : 10;
  if (step != total && step != first_step_ + 1 && seconds_between(shown_, now) < interval) return;
  shown_ = now;
  std::string terms;
  char part[64];
  const auto add = [&](const char* name, double value) {
    std::snprintf(part, sizeof part, "  %s %.4f", name, value);
    terms += part;
  };
  add("loss", l.total);
  if (l.ce) add("ce", *l.ce);
  if (l.kd) add("kd", *l.kd);
  if (l.ld) add("ld", *l.ld);
  if (l.teacher_ce) add("teacher ce", *l.teacher_ce);
  const std::int64_t measured = step - first_step_ - 1;
  const std::string left =
      measured > 0
          ? short_time(seconds_between(start_, now) / static_cast<double>(measured) * static_cast<double>(total - step))
          : "?";
  std::fprintf(out_, "%sstep %lld/%lld%s  %.0f tokens/s  %s left%s", terminal_ ? "\r\x1b[K" : "",
               static_cast<long long>(step), static_cast<long long>(total), terms.c_str(), tokens_per_second,
               left.c_str(), terminal_ ? "" : "\n");
  line_open_ = terminal_;
  std::fflush(out_);
}

}  // namespace cald
