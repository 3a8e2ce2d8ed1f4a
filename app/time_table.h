// Where a run's time goes, by kernel.
#pragma once
#include <map>
#include <string>

#include "engine/context.h"

namespace cald {

class TimeTable : public LaunchObserver {
 public:
  void launched(const char* kernel, const char* op, const std::string& scope, double seconds) override;
  /// A table of kernels by descending time: calls, seconds, share.
  std::string text() const;

 private:
  struct Row {
    std::int64_t calls = 0;
    double seconds = 0;
  };
  std::map<std::string, Row> rows_;
};

}  // namespace cald
