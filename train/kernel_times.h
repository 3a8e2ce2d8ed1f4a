// Where time goes, by kernel, and what the kernels did in it.
#pragma once
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/launch_observer.h"

namespace cald {

class KernelTimes : public LaunchObserver {
 public:
  struct Row {
    std::int64_t calls = 0;
    double seconds = 0;
    Cost cost;
    Row& operator+=(const Row& o) {
      calls += o.calls;
      seconds += o.seconds;
      cost += o.cost;
      return *this;
    }
  };

  void launched(const Launch& launch) override { rows_[launch.kernel] += {1, launch.seconds(), launch.cost}; }
  void clear() { rows_.clear(); }
  /// Kernels by descending time.
  std::vector<std::pair<std::string, Row>> rows() const;
  Row total() const;

 private:
  std::map<std::string, Row> rows_;
};

}  // namespace cald
