#include "models/encoder_config.h"

#include <map>

#include "engine/base/error.h"

namespace cald {
namespace {

using nlohmann::json;

/// Whether a value is of the kind that T wants, and that kind's name.
template <class T>
std::pair<bool, const char*> kind_of(const json& value) {
  if constexpr (std::is_same_v<T, std::int64_t>) return {value.is_number_integer(), "a whole number"};
  if constexpr (std::is_same_v<T, float>) return {value.is_number(), "a number"};
  if constexpr (std::is_same_v<T, std::string>) return {value.is_string(), "a text"};
  if constexpr (std::is_same_v<T, bool>) return {value.is_boolean(), "true or false"};
  return {true, ""};
}

template <class T>
T get(const json& j, const char* key, const std::string& where) {
  const auto it = j.find(key);
  if (it == j.end()) throw data_error(where, std::string("key '") + key + "' is missing");
  // nlohmann::json would cut a number at its point, and take true for 1.
  const auto [fits, wanted] = kind_of<T>(*it);
  if (!fits) throw data_error(where, std::string("key '") + key + "' is " + it->dump() + ", wanted " + wanted);
  return it->get<T>();
}

template <class T>
T get_or(const json& j, const char* key, T otherwise, const std::string& where) {
  const auto it = j.find(key);
  return it == j.end() || it->is_null() ? otherwise : get<T>(j, key, where);
}

std::int64_t within(std::int64_t n, std::int64_t least, std::int64_t most, const char* key, const std::string& where) {
  if (n < least || n > most)
    throw data_error(where, std::string("key '") + key + "' is " + std::to_string(n) + ", wanted " +
                                std::to_string(least) + " to " + std::to_string(most));
  return n;
}

std::int64_t positive(const json& j, const char* key, const std::string& where) {
  return within(get<std::int64_t>(j, key, where), 1, std::int64_t{1} << 31, key, where);
}

float rate(const json& j, const char* key, float otherwise, const std::string& where) {
  const auto r = get_or<float>(j, key, otherwise, where);
  if (!(r >= 0 && r < 1))
    throw data_error(where, std::string("key '") + key + "' is " + j[key].dump() + ", wanted at least 0 and below 1");
  return r;
}

Activation activation_of(const std::string& name, const std::string& where) {
  static const std::map<std::string, Activation> kNames = {
      {"gelu", Activation::gelu}, {"gelu_new", Activation::gelu_tanh}, {"gelu_pytorch_tanh", Activation::gelu_tanh},
      {"relu", Activation::relu}, {"silu", Activation::silu},          {"swish", Activation::silu}};
  const auto it = kNames.find(name);
  if (it == kNames.end())
    throw data_error(where,
                     "key 'hidden_act' is '" + name + "', wanted gelu, gelu_new, gelu_pytorch_tanh, relu or silu");
  return it->second;
}

std::vector<std::string> labels_of(const json& j, const std::string& where) {
  if (j.contains("id2label")) {
    std::map<long, std::string> by_id;
    try {
      for (const auto& [id, label] : j["id2label"].items()) by_id[std::stol(id)] = label.get<std::string>();
    } catch (const std::exception&) {
      throw data_error(where, "key 'id2label' must map numbers to names");
    }
    std::vector<std::string> labels;
    for (const auto& [id, label] : by_id) {
      if (id != static_cast<long>(labels.size())) throw data_error(where, "key 'id2label' must number from 0 on");
      labels.push_back(label);
    }
    return labels;
  }
  std::vector<std::string> labels;
  constexpr std::int64_t kMostLabels = 65536;
  const auto n = within(get_or<std::int64_t>(j, "num_labels", 2, where), 1, kMostLabels, "num_labels", where);
  for (std::int64_t i = 0; i < n; ++i) labels.push_back("LABEL_" + std::to_string(i));
  return labels;
}

std::vector<EncoderConfig::LayerMixer> mixers_of(const json& j, std::int64_t layers, const std::string& where) {
  std::vector<EncoderConfig::LayerMixer> mixers(static_cast<std::size_t>(layers));
  const auto it = j.find("cald");
  if (it == j.end()) return mixers;
  const json list = get<json>(*it, "mixers", where + ": cald");
  if (!list.is_array() || list.size() != mixers.size())
    throw data_error(where,
                     "key 'cald.mixers' must list one mixer for each of the " + std::to_string(layers) + " layers");
  for (std::size_t i = 0; i < mixers.size(); ++i) {
    mixers[i].name = get<std::string>(list[i], "name", where + ": cald.mixers");
    mixers[i].options = get_or<json>(list[i], "options", json::object(), where);
  }
  return mixers;
}

Family family_of(const json& j, const std::string& where) {
  const auto type = get<std::string>(j, "model_type", where);
  if (type == "bert") return Family::bert;
  if (type == "roberta") return Family::roberta;
  throw data_error(where, "key 'model_type' is '" + type + "', wanted bert or roberta");
}

}  // namespace

EncoderConfig EncoderConfig::from_json(const json& j, const std::string& where) {
  EncoderConfig c;
  c.source = j;
  c.family = family_of(j, where);
  c.vocab_size = positive(j, "vocab_size", where);
  c.hidden = positive(j, "hidden_size", where);
  constexpr std::int64_t kMostLayers = 4096;
  c.layers = within(get<std::int64_t>(j, "num_hidden_layers", where), 1, kMostLayers, "num_hidden_layers", where);
  c.heads = positive(j, "num_attention_heads", where);
  c.ffn = positive(j, "intermediate_size", where);
  c.max_positions = positive(j, "max_position_embeddings", where);
  c.type_vocab = positive(j, "type_vocab_size", where);
  c.pad_id = within(get_or<std::int64_t>(j, "pad_token_id", c.family == Family::roberta ? 1 : 0, where), 0,
                    c.vocab_size - 1, "pad_token_id", where);
  c.eps = get_or<float>(j, "layer_norm_eps", 1e-12f, where);
  if (!(c.eps > 0 && c.eps < 1))
    throw data_error(where, "key 'layer_norm_eps' is " + j["layer_norm_eps"].dump() + ", wanted more than 0, below 1");
  c.activation = activation_of(get_or<std::string>(j, "hidden_act", "gelu", where), where);
  c.hidden_dropout = rate(j, "hidden_dropout_prob", 0.1f, where);
  c.attention_dropout = rate(j, "attention_probs_dropout_prob", 0.1f, where);
  c.classifier_dropout = rate(j, "classifier_dropout", c.hidden_dropout, where);
  c.labels = labels_of(j, where);
  c.mixers = mixers_of(j, c.layers, where);
  if (c.hidden % c.heads != 0)
    throw data_error(where, "hidden_size " + std::to_string(c.hidden) + " is not a multiple of num_attention_heads " +
                                std::to_string(c.heads));
  const auto positions = get_or<std::string>(j, "position_embedding_type", "absolute", where);
  if (positions != "absolute")
    throw data_error(where, "key 'position_embedding_type' is '" + positions + "', wanted absolute");
  if (get_or<bool>(j, "is_decoder", false, where)) throw data_error(where, "a decoder is not supported here");
  if (c.max_tokens() < 1) throw data_error(where, "max_position_embeddings leaves no room for a token");
  return c;
}

json EncoderConfig::to_json() const {
  json j = source;
  j["model_type"] = family == Family::roberta ? "roberta" : "bert";
  const std::string name = family == Family::roberta ? "Roberta" : "Bert";
  j["architectures"] = {name + (labels.empty() ? "Model" : "ForSequenceClassification")};
  j["max_position_embeddings"] = max_positions;
  if (!labels.empty()) {
    j["id2label"] = json::object();
    j["label2id"] = json::object();
    for (std::size_t i = 0; i < labels.size(); ++i) {
      j["id2label"][std::to_string(i)] = labels[i];
      j["label2id"][labels[i]] = i;
    }
    j.erase("num_labels");
  }
  j.erase("cald");
  bool converted = false;
  json list = json::array();
  for (const LayerMixer& m : mixers) {
    converted |= m.name != "attention";
    list.push_back({{"name", m.name}, {"options", m.options}});
  }
  if (converted) j["cald"] = {{"mixers", list}};
  return j;
}

}  // namespace cald
