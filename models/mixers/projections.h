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
      weight_[i]->is_operand = true;
      bias_[i] = &b.parameters.declare(b.prefix + names[i] + ".bias", {b.hidden});
    }
  }
  Tensor query(Tape& t, const Tensor& x) const { return project(t, x, 0); }
  Tensor key(Tape& t, const Tensor& x) const { return project(t, x, 1); }
  Tensor value(Tape& t, const Tensor& x) const { return project(t, x, 2); }
  /// Keys and values of weighted sums of tokens: `weight` (..., 1) is the sum of the weights.
  Tensor key_of_sums(Tape& t, const Tensor& sums, const Tensor& weight) const { return project(t, sums, 1, weight); }
  Tensor value_of_sums(Tape& t, const Tensor& sums, const Tensor& weight) const { return project(t, sums, 2, weight); }

 private:
  Tensor project(Tape& t, const Tensor& x, int i) const {
    return t.apply(Linear{weight_[i]->copies}, x, t.parameter(*weight_[i]), t.parameter(*bias_[i]));
  }
  Tensor project(Tape& t, const Tensor& sums, int i, const Tensor& weight) const {
    return t.apply(WeightedBiasLinear{weight_[i]->copies}, sums, t.parameter(*weight_[i]), t.parameter(*bias_[i]),
                   weight);
  }
  Parameter* weight_[3];
  Parameter* bias_[3];
};

}  // namespace cald
