// Where time goes, by kernel, and what the kernels did in it.
#pragma once
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/launch_observer.h"

namespace cald {

class KernelTimes : public LaunchObserver {
 public:
  struct Row {
    std::int64_t calls = 0;
    double seconds = 0;
    Cost cost;  ///< of all calls
    Row& operator+=(const Row& o) {
      calls += o.calls;
      seconds += o.seconds;
      cost += o.cost;
      return *this;
    }
  };
  /// Launches of one kernel and one cost, such as products of one shape.
  struct Key {
    std::string kernel;
    double flop, bytes, bf16_flop;
    bool operator<(const Key& o) const {
      return std::tie(kernel, flop, bytes, bf16_flop) < std::tie(o.kernel, o.flop, o.bytes, o.bf16_flop);
    }
  };

  void launched(const Launch& launch) override;

  const std::map<Key, Row>& launches() const { return launches_; }
  /// By kernel, in descending time.
  std::vector<std::pair<std::string, Row>> rows() const;
  Row total() const;

 private:
  std::map<Key, Row> launches_;
};

}  // namespace cald
