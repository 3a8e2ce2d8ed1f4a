// CALD's loss: L = a_CE L_CE + a_KD L_KD + a_LD L_LD.
#pragma once
#include <vector>

#include "models/encoder.h"
#include "train/options.h"

namespace cald {

/// What the student is to match at this step: constants for its tape.
struct Guidance {
  std::vector<Tensor> states;  ///< H_0 .. H_m of the teacher; empty if L_LD is off
  Tensor logits;               ///< absent if L_KD is off
};

/// The terms' weights and forms, with the preset's choices made.
struct LossWeights {
  double ce = 1, kd = 0, ld = 0;
  double temperature = 2;
  bool kd_squared = true, ld_embeddings = true, ld_pads = true, ld_normalise = false;
  Reduce ld_reduce = Reduce::sum;

  /// From options whose preset is resolved.
  static LossWeights from(const RunOptions& o);
};

/// Scalars (1) on the tape; absent where a term is off.
struct LossTerms {
  Tensor total, ce, kd, ld;
  std::vector<Tensor> ld_by_state;
};

/// What a micro-batch's means count for in those of the step: of examples, and of the tokens that L_LD counts.
struct LossShares {
  double examples, tokens;
};

/// The shares multiply the terms' parts in the total. labels: (B); mask: (B, S).
LossTerms cald_loss(Tape& tape, const EncoderOutput& student, const Guidance& teacher, const Tensor& labels,
                    const Tensor& mask, const LossWeights& weights, const LossShares& shares);

}  // namespace cald
