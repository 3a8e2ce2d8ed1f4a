// Full softmax attention, as BERT and RoBERTa have it (Vaswani et al. 2017).
#include <cmath>

#include "models/mixers/mixer.h"
#include "models/mixers/projections.h"
#include "ops/attention.h"

namespace cald {
namespace {

class FullAttention : public Mixer {
 public:
  explicit FullAttention(const MixerBuild& b) : qkv_(b), heads_(static_cast<int>(b.heads)) {
    scale_ = 1.0f / std::sqrt(static_cast<float>(b.hidden / b.heads));
  }

  Tensor forward(Tape& t, const Tensor& x, const MixerInput& in) const override {
    const Tensor q = qkv_.query(t, x), k = qkv_.key(t, x), v = qkv_.value(t, x);  // (B, S, D)
    return t.apply(Attention{heads_, scale_, false, in.dropout}, q, k, v, in.mask, in.samples);
  }

 private:
  Projections qkv_;
  int heads_;
  float scale_;
};

}  // namespace

MixerType mixer_attention() {
  return {"attention", [](const MixerBuild& b) -> std::unique_ptr<Mixer> { return std::make_unique<FullAttention>(b); },
          nullptr,
          [](const nlohmann::json& j) {
            if (!j.empty()) throw usage_error("the mixer 'attention' has no options, got '" + j.begin().key() + "'");
            return j;
          }};
}

}  // namespace cald
