// Linformer (Wang et al. 2020), as CALD uses it: keys and values are projected along the sequence to k slots.
//
//   K' = E[:len]^T (x W_K + b_K) / sqrt(len),  V' = F[:len]^T (x W_V + b_V) / sqrt(len),
//   y = softmax(q K'^T / sqrt(head size)) V'.
//
// Both projections are linear, so that they can be done in either order. Where there are more tokens than slots the
// sequence's comes first:
//
//   K' = (E[:len]^T x / sqrt(len)) W_K + (E[:len]^T 1 / sqrt(len)) b_K,
//
// products with k rows instead of S, and neither keys nor values of the tokens in memory.
//
// len is the sample's true length and a token's row of E is its rank among the valid tokens, so pads on either side
// change nothing and the softmax over k slots needs no mask. E and F: (max_positions, k), shared by the heads.
#include <cmath>

#include "models/mixers/mixer.h"
#include "models/mixers/projections.h"
#include "ops/attention.h"
#include "ops/low_rank.h"

namespace cald {
namespace {

class Linformer : public Mixer {
 public:
  explicit Linformer(const MixerBuild& b) : qkv_(b), heads_(static_cast<int>(b.heads)) {
    scale_ = 1.0f / std::sqrt(static_cast<float>(b.hidden / b.heads));
    const auto share = b.options.at("share").get<std::string>();
    const Shape shape{b.max_positions, b.options.at("k").get<std::int64_t>()};
    if (share == "layerwise") {
      e_ = b.parameters.find(b.first_prefix + "E");
      if (e_ == nullptr) e_ = &b.parameters.declare(b.first_prefix + "E", shape, true);
      f_ = e_;
    } else {
      e_ = &b.parameters.declare(b.prefix + "E", shape, true);
      f_ = share == "key-value" ? e_ : &b.parameters.declare(b.prefix + "F", shape, true);
    }
  }

  Tensor forward(Tape& t, const Tensor& x, const MixerInput& in) const override {
    const Tensor q = qkv_.query(t, x);
    const LowRankProjection project{in.rank, in.lengths};
    Tensor k, v;  // (B, k, D)
    if (x.dim(1) > e_->shape[1]) {
      Context& c = t.context();
      c.set_op(LowRankProjection::name);
      const Tensor ones = c.empty({x.dim(0), x.dim(1), 1});
      c.launch(Fill{ones, 1.0f});
      struct Sums {
        Tensor of_x, of_ones;
      };
      const auto sums = [&](Parameter& p) {
        const Tensor e = t.parameter(p);
        return Sums{t.apply(project, x, e), t.apply(project, ones, e)};
      };
      const Sums e = sums(*e_), f = f_ == e_ ? e : sums(*f_);
      k = qkv_.key_of_sums(t, e.of_x, e.of_ones);
      v = qkv_.value_of_sums(t, f.of_x, f.of_ones);
    } else {
      k = t.apply(project, qkv_.key(t, x), t.parameter(*e_));
      v = t.apply(project, qkv_.value(t, x), t.parameter(*f_));
    }
    return t.apply(Attention{heads_, scale_, false, in.dropout}, q, k, v, Tensor{}, in.samples);
  }

 private:
  Projections qkv_;
  Parameter *e_, *f_;
  int heads_;
  float scale_;
};

/// The three starts. `normal` is the released code's N(0, std). The other two imitate attention at the typical length:
/// `identity` gives token r the slot r mod k, `pooling` gives each slot the mean of a run of neighbours.
void initialise(const MixerInit& in) {
  const std::int64_t rows = in.parameter.shape[0], k = in.parameter.shape[1];
  float* const e = in.values;
  const auto start = in.options.at("init").get<std::string>();
  if (start == "normal") {
    RandomStream random(in.seed, stream_of(in.parameter.name));
    const auto std = in.options.at("std").get<float>();
    for (std::int64_t i = 0; i < rows * k; ++i) e[i] = std * random.normal();  // eq:linformer_start
    return;
  }
  const auto length = static_cast<float>(in.typical_length);
  const std::int64_t run = start == "pooling" ? std::max<std::int64_t>(1, (in.longest + k - 1) / k) : 1;
  std::fill(e, e + rows * k, 0.0f);
  for (std::int64_t r = 0; r < rows; ++r) e[r * k + r / run % k] = std::sqrt(length) / static_cast<float>(run);
}

nlohmann::json check_options(const nlohmann::json& given) {
  nlohmann::json o = {{"k", 256}, {"share", "none"}, {"init", "normal"}, {"std", 1.0}};
  for (const auto& [key, value] : given.items()) {
    if (!o.contains(key))
      throw usage_error("the mixer 'linformer' has no option '" + key + "'; it has k, share, init, std");
    const bool same_kind = o[key].is_string() ? value.is_string() : value.is_number();
    if (!same_kind) throw usage_error("linformer: option '" + key + "' has the value " + value.dump());
    o[key] = value;
  }
  if (!o["k"].is_number_integer() || o["k"].get<std::int64_t>() < 1)
    throw usage_error("linformer: k must be 1 or more");
  const auto one_of = [&](const char* key, std::initializer_list<const char*> names) {
    for (const char* n : names)
      if (o[key] == n) return;
    throw usage_error(std::string("linformer: option '") + key + "' is " + o[key].dump());
  };
  one_of("share", {"none", "key-value", "layerwise"});
  one_of("init", {"normal", "pooling", "identity"});
  return o;
}

}  // namespace

MixerType mixer_linformer() {
  return {"linformer", [](const MixerBuild& b) -> std::unique_ptr<Mixer> { return std::make_unique<Linformer>(b); },
          initialise, check_options};
}

}  // namespace cald
