// The query, key and value projections that attention-like mixers share.
#pragma once
#include "models/mixers/mixer.h"
#include "ops/linear.h"

namespace cald {

class Projections {
 public:
  explicit Projections(const MixerBuild& b) {
    const char* names[] = {"query", "key", "value"};
    for (int i = 0; i < 3; ++i) {
      weight_[i] = &b.parameters.declare(b.prefix + names[i] + ".weight", {b.hidden, b.hidden});
      bias_[i] = &b.parameters.declare(b.prefix + names[i] + ".bias", {b.hidden});
    }
  }
  Tensor query(Tape& t, const Tensor& x) const { return project(t, x, 0); }
  Tensor key(Tape& t, const Tensor& x) const { return project(t, x, 1); }
  Tensor value(Tape& t, const Tensor& x) const { return project(t, x, 2); }

 private:
  Tensor project(Tape& t, const Tensor& x, int i) const {
    return t.apply(Linear{}, x, t.cast(t.parameter(*weight_[i]), x.dtype()), t.parameter(*bias_[i]));
  }
  Parameter* weight_[3];
  Parameter* bias_[3];
};

}  // namespace cald
