// LaunchObserver: who watches what a context launches, for the table of where the time goes and for traces.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/launch.h"

namespace cald {

/// A launch that has ended. The strings outlive only the call that hands it over.
struct Launch {
  using Clock = std::chrono::steady_clock;
  const char* kernel;
  const char* op;            ///< on whose behalf
  const std::string& scope;  ///< the innermost scope's path: "student/layer.3"
  Clock::time_point begin, end;
  Cost cost;

  double seconds() const { return std::chrono::duration<double>(end - begin).count(); }
};

class LaunchObserver {
 public:
  virtual ~LaunchObserver() = default;
  virtual void launched(const Launch& launch) = 0;
  /// Around the launches of one training step; `step` counts from 1. Evaluations lie outside of steps.
  virtual void begin_step(std::int64_t /*step*/) {}
  virtual void end_step() {}
};

/// Hands everything on to several observers, in their order.
class LaunchObservers : public LaunchObserver {
 public:
  explicit LaunchObservers(std::vector<LaunchObserver*> observers) : observers_(std::move(observers)) {}
  void launched(const Launch& launch) override {
    for (LaunchObserver* o : observers_) o->launched(launch);
  }
  void begin_step(std::int64_t step) override {
    for (LaunchObserver* o : observers_) o->begin_step(step);
  }
  void end_step() override {
    for (LaunchObserver* o : observers_) o->end_step();
  }

 private:
  std::vector<LaunchObserver*> observers_;
};

}  // namespace cald
