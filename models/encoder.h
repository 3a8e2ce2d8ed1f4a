// BERT and RoBERTa encoders with sequence classification (Devlin et al. 2019, Liu et al. 2019), post-norm, with the
// mixers that the configuration names.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "models/encoder_config.h"
#include "models/mixers/mixer.h"

namespace cald {

/// One padded batch on the device. All i32.
struct EncoderInput {
  Tensor word_ids, position_ids, type_ids;  ///< (B, S)
  Tensor mask, rank;                        ///< (B, S); see MixerInput
  Tensor lengths, samples;                  ///< (B)
};

/// How a forward pass draws its dropout. Rates below 0 stand for config.json's own.
struct DropoutPlan {
  bool on = false;
  float rate = -1.0f;  ///< one rate for all sites, where a setting overrides the configuration
  std::uint64_t seed = 0;
  std::uint32_t step = 0;
  std::uint32_t stream = 0;  ///< teacher and student draw independently
};

struct EncoderOutput {
  std::vector<Tensor> states;  ///< H_0 (embeddings) .. H_layers, each (B, S, D); only the last unless all are kept
  Tensor logits;               ///< (B, labels); absent without a head
};

class Encoder {
 public:
  /// Declares all parameters; they have no memory until parameters().allocate().
  explicit Encoder(EncoderConfig config);

  const EncoderConfig& config() const { return config_; }
  ParameterSet& parameters() { return parameters_; }
  const ParameterSet& parameters() const { return parameters_; }

  /// The model's parts are the embeddings, each layer, and the head.
  std::size_t parts() const { return part_ends_.size(); }
  std::size_t part_of(const Parameter& p) const;
  /// `fn` sees the number of each part when a pass that records nothing has used its weights.
  void on_part_done(std::function<void(std::size_t part)> fn) { part_done_ = std::move(fn); }

  /// Of the first `recompute` layers a recording tape keeps the input alone and computes the rest again going
  /// backwards.
  EncoderOutput forward(Tape& tape, const EncoderInput& in, const DropoutPlan& dropout, bool keep_states,
                        std::int64_t recompute = 0) const;

 private:
  struct Affine {
    Parameter *weight, *bias;
  };
  struct Layer {
    std::unique_ptr<Mixer> mixer;
    Affine attention_out, attention_norm, ffn_in, ffn_out, ffn_norm;
  };
  class Pass;

  Affine affine(const std::string& name, std::int64_t out, std::int64_t in);
  Affine norm(const std::string& name);
  void declare_head();

  EncoderConfig config_;
  ParameterSet parameters_;
  Parameter *word_, *position_, *type_;
  Affine embedding_norm_;
  std::vector<Layer> layers_;
  Affine head_dense_{}, head_out_{};
  std::vector<std::size_t> part_ends_;  // parameters declared up to the end of each part
  std::function<void(std::size_t)> part_done_;
};

}  // namespace cald
