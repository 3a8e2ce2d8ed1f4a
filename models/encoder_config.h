// Configuration of a BERT or RoBERTa encoder, as config.json has it.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/elementwise.h"

namespace cald {

enum class Family { bert, roberta };

struct EncoderConfig {
  Family family = Family::bert;
  std::int64_t vocab_size = 0, hidden = 0, layers = 0, heads = 0, ffn = 0;
  std::int64_t max_positions = 0, type_vocab = 0, pad_id = 0;
  float eps = 1e-12f;
  Activation activation = Activation::gelu;
  float hidden_dropout = 0.1f, attention_dropout = 0.1f, classifier_dropout = 0.1f;
  std::vector<std::string> labels;  ///< by id; empty: no classification head
  /// By layer: the mixer's name and its own options. Absent in a transformer: full attention everywhere.
  struct LayerMixer {
    std::string name = "attention";
    nlohmann::json options = nlohmann::json::object();
  };
  std::vector<LayerMixer> mixers;
  nlohmann::json source;  ///< config.json as read; keys that are not ours are written back unchanged

  /// Tokens that an input may have: RoBERTa's first position id is pad_id + 1.
  std::int64_t max_tokens() const { return family == Family::roberta ? max_positions - pad_id - 1 : max_positions; }
  std::string prefix() const { return family == Family::roberta ? "roberta." : "bert."; }

  /// Reads config.json's object; `where` names the file in errors. Error on an architecture or setting that the encoder
  /// does not compute.
  static EncoderConfig from_json(const nlohmann::json& j, const std::string& where);
  /// config.json for transformers, plus the key "cald" with the layers' mixers if any is not full attention.
  nlohmann::json to_json() const;
};

}  // namespace cald
