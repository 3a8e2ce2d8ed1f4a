#include "train/cald_loss.h"

#include "ops/losses.h"

namespace cald {

LossWeights LossWeights::from(const RunOptions& o) {
  const bool guided = o.mode != Mode::finetune && o.mode != Mode::unguided;
  return {o.a_ce,     guided ? o.a_kd : 0.0, guided ? o.a_ld : 0.0, o.temperature, *o.kd_squared, *o.ld_embeddings,
          *o.ld_pads, o.ld_normalise,        *o.ld_reduce};
}

LossTerms cald_loss(Tape& t, const EncoderOutput& student, const Guidance& teacher, const Tensor& labels,
                    const Tensor& mask, const LossWeights& w, const LossShares& shares) {
  const Context::Scope scope(t.context(), "loss");
  LossTerms terms;
  const auto add = [&](const Tensor& term, double weight, double share) {
    const auto scaled = static_cast<float>(weight * share);
    terms.total = terms.total ? t.apply(WeightedSum{1.0f, scaled}, terms.total, term)
                              : t.apply(WeightedSum{scaled, 0.0f}, term, Tensor{});  // eq:L
  };
  terms.ce = t.apply(CrossEntropy{labels}, student.logits);
  add(terms.ce, w.ce, shares.examples);
  if (teacher.logits) {
    const auto scale = static_cast<float>(w.kd_squared ? w.temperature * w.temperature : 1.0);
    terms.kd = t.apply(KlDivergence{teacher.logits, static_cast<float>(w.temperature), scale}, student.logits);
    add(terms.kd, w.kd, shares.examples);
  }
  if (teacher.states.empty()) return terms;

  const std::size_t first = w.ld_embeddings ? 0 : 1;
  for (std::size_t i = first; i < student.states.size(); ++i) {
    const SquaredError error{teacher.states[i], w.ld_pads ? Tensor{} : mask, w.ld_normalise};
    terms.ld_by_state.push_back(t.apply(error, student.states[i]));
  }
  const auto n = static_cast<double>(terms.ld_by_state.size());
  const auto each = static_cast<float>(w.ld_reduce == Reduce::mean ? 1.0 / n : 1.0);  // eq:L_LD_states
  for (const Tensor& state : terms.ld_by_state)
    terms.ld = terms.ld ? t.apply(WeightedSum{1.0f, each}, terms.ld, state)
                        : t.apply(WeightedSum{each, 0.0f}, state, Tensor{});
  add(terms.ld, w.ld, shares.tokens);
  return terms;
}

}  // namespace cald
