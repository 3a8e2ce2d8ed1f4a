#include "models/encoder.h"

#include <algorithm>
#include <map>

#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"

namespace cald {

Encoder::Affine Encoder::affine(const std::string& name, std::int64_t out, std::int64_t in) {
  return {&parameters_.declare(name + ".weight", {out, in}), &parameters_.declare(name + ".bias", {out})};
}

Encoder::Affine Encoder::norm(const std::string& name) {
  return {&parameters_.declare(name + ".weight", {config_.hidden}),
          &parameters_.declare(name + ".bias", {config_.hidden})};
}

Encoder::Encoder(EncoderConfig config) : config_(std::move(config)) {
  const EncoderConfig& c = config_;
  const std::string root = c.prefix();
  word_ = &parameters_.declare(root + "embeddings.word_embeddings.weight", {c.vocab_size, c.hidden});
  position_ = &parameters_.declare(root + "embeddings.position_embeddings.weight", {c.max_positions, c.hidden});
  type_ = &parameters_.declare(root + "embeddings.token_type_embeddings.weight", {c.type_vocab, c.hidden});
  for (Parameter* table : {word_, position_, type_}) table->is_table = true;
  embedding_norm_ = norm(root + "embeddings.LayerNorm");
  part_ends_.push_back(parameters_.all().size());

  std::map<std::string, std::string> first_prefix;
  for (std::int64_t i = 0; i < c.layers; ++i) {
    const std::string at = root + "encoder.layer." + std::to_string(i) + ".";
    const EncoderConfig::LayerMixer& m = c.mixers[static_cast<std::size_t>(i)];
    const std::string prefix = at + "attention.self.";
    const std::string& first = first_prefix.try_emplace(m.name + m.options.dump(), prefix).first->second;
    Layer layer;
    layer.mixer = find_mixer(m.name).build({parameters_, prefix, first, c.hidden, c.heads, c.max_positions, m.options});
    layer.attention_out = affine(at + "attention.output.dense", c.hidden, c.hidden);
    layer.attention_norm = norm(at + "attention.output.LayerNorm");
    layer.ffn_in = affine(at + "intermediate.dense", c.ffn, c.hidden);
    layer.ffn_out = affine(at + "output.dense", c.hidden, c.ffn);
    layer.ffn_norm = norm(at + "output.LayerNorm");
    for (const Affine& a : {layer.attention_out, layer.ffn_in, layer.ffn_out}) a.weight->is_operand = true;
    layers_.push_back(std::move(layer));
    part_ends_.push_back(parameters_.all().size());
  }
  if (!c.labels.empty()) declare_head();
  part_ends_.push_back(parameters_.all().size());
}

std::size_t Encoder::part_of(const Parameter& p) const {
  return static_cast<std::size_t>(std::upper_bound(part_ends_.begin(), part_ends_.end(), p.number) -
                                  part_ends_.begin());
}

void Encoder::declare_head() {
  const auto classes = static_cast<std::int64_t>(config_.labels.size());
  if (config_.family == Family::bert) {
    head_dense_ = affine("bert.pooler.dense", config_.hidden, config_.hidden);
    head_out_ = affine("classifier", classes, config_.hidden);
  } else {
    head_dense_ = affine("classifier.dense", config_.hidden, config_.hidden);
    head_out_ = affine("classifier.out_proj", classes, config_.hidden);
  }
}

/// One forward pass: the state that its steps share. Dropout sites are numbered in the model's own order, so that a
/// site's draws do not depend on which other sites are active.
class Encoder::Pass {
 public:
  Pass(const Encoder& model, Tape& tape, const EncoderInput& in, const DropoutPlan& plan)
      : model_(model), c_(model.config_), t_(tape), in_(in), plan_(plan), compute_(tape.context().exec().compute) {}

  Tensor embed() {
    const Context::Scope scope(t_.context(), "embeddings");
    const bool pads_have_a_position = c_.family == Family::roberta;
    const EmbeddingSum embedding{in_.word_ids, in_.position_ids, in_.type_ids, c_.pad_id,
                                 pads_have_a_position ? c_.pad_id : -1};
    const Tensor sum = t_.apply(embedding, t_.parameter(*model_.word_), t_.parameter(*model_.position_),
                                t_.parameter(*model_.type_));  // (B, S, D)
    return drop(normalise(sum, {}, model_.embedding_norm_, {}), kEmbedding);
  }

  Tensor layer(std::size_t i, const Tensor& x) {
    const Context::Scope scope(t_.context(), "layer." + std::to_string(i));
    const Layer& l = model_.layers_[i];
    const auto site = static_cast<std::uint32_t>(kFirstLayer + kSitesPerLayer * i);
    const MixerInput mix{in_.mask, in_.rank, in_.lengths, in_.samples, dropout(c_.attention_dropout, site)};
    Tensor a = l.mixer->forward(t_, t_.cast(x, compute_), mix);
    a = linear(a, l.attention_out);
    a = normalise(a, x, l.attention_norm, dropout(c_.hidden_dropout, site + 1));
    Tensor h = linear(t_.cast(a, compute_), l.ffn_in);  // (B, S, FFN)
    h = t_.apply(ActivatedLinear{c_.activation, l.ffn_out.weight->copies}, h, t_.parameter(*l.ffn_out.weight),
                 t_.parameter(*l.ffn_out.bias));
    return normalise(h, a, l.ffn_norm, dropout(c_.hidden_dropout, site + 2));
  }

  /// BERT: dropout(tanh(dense(first))) -> classifier; RoBERTa has one more dropout, before the dense layer.
  Tensor head(const Tensor& x) {
    const Context::Scope scope(t_.context(), "head");
    Tensor first = t_.apply(Contiguous{}, t_.narrow(x, 1, 0, 1));  // (B, 1, D)
    if (c_.family == Family::roberta) first = drop(first, kHeadIn, c_.classifier_dropout);
    Tensor pooled = t_.apply(Activate{Activation::tanh}, linear(first, model_.head_dense_));
    pooled = drop(pooled, kHeadOut, c_.classifier_dropout);
    const Tensor logits = linear(pooled, model_.head_out_);  // (B, 1, labels)
    return t_.view(logits, {logits.dim(0), logits.dim(2)});
  }

 private:
  static constexpr std::uint32_t kEmbedding = 0, kHeadIn = 1, kHeadOut = 2, kFirstLayer = 8, kSitesPerLayer = 4;
  static constexpr std::uint32_t kSitesPerStream = 1u << 16;

  Dropout dropout(float configured, std::uint32_t site) const {
    if (!plan_.on) return {};
    return {plan_.rate >= 0 ? plan_.rate : configured, {plan_.seed, plan_.step, plan_.stream * kSitesPerStream + site}};
  }
  Tensor drop(const Tensor& x, std::uint32_t site) { return drop(x, site, c_.hidden_dropout); }
  Tensor drop(const Tensor& x, std::uint32_t site, float configured) {
    const Dropout d = dropout(configured, site);
    return d.active() ? t_.apply(DropoutOp{d}, x, in_.samples) : x;
  }
  Tensor linear(const Tensor& x, const Affine& a) {
    return t_.apply(Linear{a.weight->copies}, x, t_.parameter(*a.weight), t_.parameter(*a.bias));
  }
  Tensor normalise(const Tensor& x, const Tensor& residual, const Affine& a, const Dropout& d) {
    return t_.apply(LayerNorm{c_.eps, d}, x, residual, t_.parameter(*a.weight), t_.parameter(*a.bias), in_.samples);
  }

  const Encoder& model_;
  const EncoderConfig& c_;
  Tape& t_;
  const EncoderInput& in_;
  const DropoutPlan& plan_;
  DType compute_;
};

EncoderOutput Encoder::forward(Tape& tape, const EncoderInput& in, const DropoutPlan& dropout, bool keep_states,
                               std::int64_t recompute) const {
  Pass pass(*this, tape, in, dropout);
  EncoderOutput out;
  const bool tells = part_done_ && !tape.recording() && !tape.context().meta();
  std::size_t part = 0;
  const auto done = [&] {
    if (tells) part_done_(part);
    ++part;
  };
  Tensor x = pass.embed();
  done();
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    if (keep_states) out.states.push_back(x);
    if (static_cast<std::int64_t>(i) < recompute)
      x = tape.recompute(
          [this, in, dropout, i](Tape& t, const Tensor& y) { return Pass(*this, t, in, dropout).layer(i, y); }, x);
    else
      x = pass.layer(i, x);
    done();
  }
  if (head_out_.weight) out.logits = pass.head(x);
  done();
  out.states.push_back(std::move(x));
  return out;
}

}  // namespace cald
