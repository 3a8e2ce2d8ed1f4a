// The launches of some training steps as a trace that chrome://tracing and Perfetto open.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "data/atomic_file.h"
#include "engine/launch_observer.h"
#include "train/step_range.h"

namespace cald {

/// Chrome's trace-event format, one track: a slice for each step, in it one for each part of the scope's path (phase,
/// layer), and inside of these one for each launch with its op, bytes and FLOP (see Cost).
class Trace : public LaunchObserver {
 public:
  /// Opens the file, so that a path that cannot be written is an Error before the run.
  Trace(const std::string& path, const StepRange& steps) : file_(std::make_unique<AtomicFile>(path)), steps_(steps) {}

  void begin_step(std::int64_t step) override;
  void launched(const Launch& launch) override;
  /// Behind the last of the wanted steps the file is written.
  void end_step() override;
  /// At the end of the run: one that was shorter leaves the wanted steps that it had, or else its last one.
  void finish();

 private:
  using Clock = Launch::Clock;
  struct Event {
    const char *kernel, *op;  // literals; null where a step begins
    std::string scope;
    Clock::time_point begin, end;
    Cost cost;
    std::int64_t step;
  };
  static std::string arguments_of(const Event& e);

  std::unique_ptr<AtomicFile> file_;  // until it is written
  StepRange steps_;
  std::int64_t begun_ = 0;
  bool recording_ = false;
  std::size_t step_at_ = 0;  // the event of the step at hand
  std::vector<Event> events_;
};

}  // namespace cald
