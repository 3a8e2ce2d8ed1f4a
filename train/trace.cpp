#include "train/trace.h"

#include <cstdio>

namespace cald {
namespace {

/// A span on the track. Times are kept in nanoseconds and printed in microseconds, as the format wants them, so that a
/// slice and the ones in it end exactly where they should.
struct Slice {
  std::string name;
  Launch::Clock::time_point begin, end;
  std::string arguments;
};

std::string microseconds(std::chrono::nanoseconds t) {
  char text[40];
  std::snprintf(text, sizeof text, "%lld.%03lld", static_cast<long long>(t.count() / 1000),
                static_cast<long long>(t.count() % 1000));
  return text;
}

/// Slices in the order of their beginnings, outer ones first, which tells viewers how those of one length nest.
class Track {
 public:
  void begin_step(const std::string& name, Launch::Clock::time_point begin, Launch::Clock::time_point end) {
    close_to(0);
    slices_.push_back({name, begin, end, ""});
  }
  /// The scopes around a launch stay open as long as launches follow each other within them.
  void launch(const std::string& scope, Slice slice) {
    std::vector<std::string> parts;
    for (std::size_t at = 0; at < scope.size();) {
      const std::size_t end = std::min(scope.find('/', at), scope.size());
      parts.push_back(scope.substr(at, end - at));
      at = end + 1;
    }
    std::size_t same = 0;
    while (same < open_.size() && same < parts.size() && slices_[open_[same]].name == parts[same]) ++same;
    close_to(same);
    for (; same < parts.size(); ++same) {
      open_.push_back(slices_.size());
      slices_.push_back({parts[same], slice.begin, slice.end, ""});
    }
    for (const std::size_t o : open_) slices_[o].end = slice.end;
    slices_.push_back(std::move(slice));
  }
  std::string json() const {
    std::string text = R"({"displayTimeUnit":"ms","traceEvents":[)";
    for (const Slice& s : slices_)
      text += (&s == slices_.data() ? "\n" : ",\n") + (R"({"name":")" + s.name) +
              R"(","ph":"X","pid":1,"tid":1,"ts":)" + microseconds(s.begin - slices_.front().begin) + R"(,"dur":)" +
              microseconds(s.end - s.begin) + R"(,"args":{)" + s.arguments + "}}";
    return text + "\n]}\n";
  }

 private:
  void close_to(std::size_t depth) { open_.resize(depth); }

  std::vector<Slice> slices_;
  std::vector<std::size_t> open_;
};

}  // namespace

std::string Trace::arguments_of(const Event& e) {
  const double seconds = std::chrono::duration<double>(e.end - e.begin).count();
  const auto rate = [&](double amount) { return seconds > 0 ? amount / seconds / 1e9 : 0.0; };
  char text[256];
  std::snprintf(text, sizeof text, R"("op":"%s","bytes":%.0f,"flop":%.0f,"GB/s":%.1f,"GFLOP/s":%.1f)", e.op,
                e.cost.bytes, e.cost.flop, rate(e.cost.bytes), rate(e.cost.flop));
  return text;
}

void Trace::begin_step(std::int64_t step) {
  ++begun_;
  recording_ = file_ && begun_ <= steps_.last;
  if (!recording_) return;
  if (begun_ <= steps_.first) events_.clear();
  step_at_ = events_.size();
  events_.push_back({nullptr, nullptr, "", Clock::now(), {}, {}, step});
}

void Trace::launched(const Launch& l) {
  if (recording_) events_.push_back({l.kernel, l.op, l.scope, l.begin, l.end, l.cost, 0});
}

void Trace::end_step() {
  if (!recording_) return;
  events_[step_at_].end = Clock::now();
  recording_ = false;
  if (begun_ == steps_.last) finish();
}

void Trace::finish() {
  if (!file_ || events_.empty()) return;
  Track track;
  for (const Event& e : events_)
    if (e.kernel)
      track.launch(e.scope, {e.kernel, e.begin, e.end, arguments_of(e)});
    else
      track.begin_step("step " + std::to_string(e.step), e.begin, e.end);
  const std::string text = track.json();
  file_->write(text.data(), text.size());
  file_->commit();
  file_.reset();
  events_ = {};
}

}  // namespace cald
