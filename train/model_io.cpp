#include "train/model_io.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "data/atomic_file.h"
#include "data/json_text.h"
#include "engine/base/rng.h"
#include "engine/host_access.h"

namespace cald {
namespace {

constexpr const char* kTokenizerConfig = "tokenizer_config.json";

bool is_head(const std::string& name) { return name.starts_with("classifier.") || name.starts_with("bert.pooler."); }

/// Parameters of the transformer's own mixer.
bool is_of_attention(const std::string& name) {
  for (const char* projection : {"query.", "key.", "value."})
    if (name.find(std::string(".attention.self.") + projection) != std::string::npos) return true;
  return false;
}

/// Tensors of published checkpoints that no encoder uses: buffers, and heads of pre-training.
bool is_ignorable(const std::string& name) {
  return name.ends_with("position_ids") || name.ends_with("token_type_ids") || name.starts_with("cls.") ||
         name.starts_with("lm_head.") || name.find("pooler.") != std::string::npos;
}

/// The names under which published checkpoints may hold a parameter: with or without the model's prefix, and with
/// LayerNorm's gamma and beta as the first BERT checkpoints called them.
std::vector<std::string> source_names(const std::string& parameter, const std::string& prefix) {
  std::vector<std::string> names = {parameter};
  if (parameter.starts_with(prefix)) names.push_back(parameter.substr(prefix.size()));
  for (std::size_t i = 0, n = names.size(); i < n; ++i) {
    if (names[i].ends_with("LayerNorm.weight")) names.push_back(names[i].substr(0, names[i].size() - 6) + "gamma");
    if (names[i].ends_with("LayerNorm.bias")) names.push_back(names[i].substr(0, names[i].size() - 4) + "beta");
  }
  return names;
}

/// Where a parameter's value comes from. Rows beyond the checkpoint's repeat those from `first_row` on.
struct Source {
  StoredTensor tensor;
  bool repeats_rows = false;
};

class Transfer {
 public:
  Transfer(const Encoder& model, const ModelDir& from, const TransferPolicy& policy)
      : model_(model), from_(from), policy_(policy) {}

  Source find(const Parameter& p) {
    const bool replaced = policy_.replace_head && is_head(p.name) && !p.name.starts_with("bert.pooler.");
    const auto names = replaced ? std::vector<std::string>{} : source_names(p.name, model_.config().prefix());
    for (const std::string& name : names) {
      const StoredTensor t = from_.find(name);
      if (!t) continue;
      used_.insert(name);
      Source s{t, extends(p, t)};
      if (!s.repeats_rows) require_shape(p, t);
      const std::string note =
          s.repeats_rows ? "rows repeated from " + std::to_string(t.shape()[0]) + " to " + std::to_string(p.shape[0])
                         : "";
      (name == p.name && note.empty() ? report.copied : report.mapped).push_back({p.name, name, note, p.shape.numel()});
      return s;
    }
    const bool allowed = p.is_new ? policy_.create_mixers : is_head(p.name) && policy_.create_head;
    if (!allowed && !(policy_.replace_head && is_head(p.name)))
      throw data_error(from_.path(), "tensor '" + p.name + "' is missing");
    report.created.push_back({p.name, "", "", p.shape.numel()});
    return {};
  }

  void account_for_leftovers() {
    for (const StoredTensor& t : from_.tensors()) {
      const std::string& name = t.name();
      if (used_.count(name)) continue;
      const bool head = is_head(name) && (policy_.replace_head || model_.config().labels.empty());
      const bool attention = policy_.drop_attention && is_of_attention(name);
      if (!is_ignorable(name) && !head && !attention)
        throw data_error(from_.path(), "tensor '" + name + "' has no place in the model");
      report.dropped.push_back({"", name, "", t.info->numel()});
    }
  }

  TransferReport report;

 private:
  bool extends(const Parameter& p, const StoredTensor& t) const {
    const bool by_position = p.name.ends_with("position_embeddings.weight") || p.is_new;
    return by_position && t.shape().size() == 2 && p.shape.rank() == 2 && t.shape()[1] == p.shape[1] &&
           t.shape()[0] > rows_without_position() && t.shape()[0] < p.shape[0];
  }
  void require_shape(const Parameter& p, const StoredTensor& t) const {
    Shape got;
    const bool fits = t.shape().size() <= kMaxRank;
    if (fits)
      for (std::int64_t d : t.shape()) got.push_back(d);
    if (!fits || !(got == p.shape))
      throw data_error(from_.path(), "tensor '" + t.name() + "' has shape " + t.info->shape_str() + ", wanted " +
                                         p.shape.str() + (is_head(p.name) ? " (--new-head replaces the head)" : ""));
  }

 public:
  /// Rows of a table by position that no position has: RoBERTa's first ones, which are the pad's, and of a mixer's
  /// table, where rows are numbers of tokens, as many at its end.
  std::int64_t rows_without_position() const {
    const EncoderConfig& c = model_.config();
    return c.family == Family::roberta ? c.pad_id + 1 : 0;
  }

 private:
  const Encoder& model_;
  const ModelDir& from_;
  const TransferPolicy& policy_;
  std::set<std::string> used_;
};

/// Into `out`, p's elements on the host. Of a table that is extended the rows that positions have are repeated.
void read_rows(const Source& s, const Parameter& p, std::int64_t without_position, float* out) {
  s.tensor.read_f32(out);
  if (!s.repeats_rows) return;
  const std::int64_t cols = p.shape[1], period = s.tensor.shape()[0] - without_position;
  for (std::int64_t r = p.is_new ? period : s.tensor.shape()[0]; r < p.shape[0]; ++r)
    std::memcpy(out + r * cols, out + (r - period) * cols, static_cast<std::size_t>(cols) * sizeof(float));
}

/// A weight that is not finite may go unseen through an op that compares.
void require_finite(const Parameter& p, const float* values, const StoredTensor& t, const std::string& path) {
  const float* const end = values + p.shape.numel();
  const float* const bad = std::find_if(values, end, [](float v) { return !std::isfinite(v); });
  if (bad != end)
    throw data_error(path, "tensor '" + t.name() + "' holds " + std::to_string(*bad) + " at element " +
                               std::to_string(bad - values) + ", wanted finite numbers");
}

/// transformers' start of a head: N(0, initializer_range), biases zero.
void initialise_head(const Parameter& p, const EncoderConfig& c, std::uint64_t seed, float* out) {
  const float range = c.source.value("initializer_range", 0.02f);
  RandomStream random(seed, stream_of(p.name));
  for (std::int64_t i = 0; i < p.shape.numel(); ++i) out[i] = p.shape.rank() == 1 ? 0.0f : range * random.normal();
}

void initialise_mixer(const Parameter& p, const EncoderConfig& c, const TransferPolicy& policy, float* out) {
  const std::string layer_at = c.prefix() + "encoder.layer.";
  const auto layer = static_cast<std::size_t>(std::stol(p.name.substr(layer_at.size())));
  const EncoderConfig::LayerMixer& m = c.mixers[layer];
  find_mixer(m.name).initialise({p, out, m.options, policy.seed, policy.typical_length, policy.longest});
}

/// Sets model_max_length in the directory's tokenizer_config.json, which is made where it is missing.
void write_trained_length(const std::string& directory, std::int64_t length) {
  const std::string path = directory + "/" + kTokenizerConfig;
  nlohmann::json config = nlohmann::json::object();
  if (std::filesystem::exists(path)) config = read_json_object(path);
  config["model_max_length"] = length;
  write_file_atomically(path, config.dump(2) + "\n");
}

std::string million(std::int64_t n) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f M", static_cast<double>(n) * 1e-6);
  return text;
}

}  // namespace

std::string TransferReport::text(bool names) const {
  const auto total = [](const std::vector<Entry>& entries) {
    std::int64_t n = 0;
    for (const Entry& e : entries) n += e.numel;
    return std::to_string(entries.size()) + " (" + million(n) + " values)";
  };
  std::string s = "tensors: copied " + total(copied) + ", mapped " + total(mapped) + ", new " + total(created) +
                  ", dropped " + total(dropped);
  if (!names) return s;
  for (const Entry& e : mapped)
    s += "\n  mapped  " + e.source + " -> " + e.parameter + (e.note.empty() ? "" : ": " + e.note);
  for (const Entry& e : created) s += "\n  new     " + e.parameter;
  for (const Entry& e : dropped) s += "\n  dropped " + e.source;
  return s;
}

nlohmann::json TransferReport::json() const {
  nlohmann::json j = {{"copied", copied.size()}, {"mapped", mapped.size()}};
  j["new"] = nlohmann::json::array();
  j["dropped"] = nlohmann::json::array();
  for (const Entry& e : created) j["new"].push_back(e.parameter);
  for (const Entry& e : dropped) j["dropped"].push_back(e.source);
  return j;
}

TransferReport load_parameters(Encoder& model, const ModelDir& from, const TransferPolicy& policy,
                               const std::function<bool(const Parameter&)>& wanted) {
  Transfer transfer(model, from, policy);
  for (Parameter& p : model.parameters().all()) {
    const Source s = transfer.find(p);
    if (wanted && !wanted(p)) continue;
    p.fill([&](float* out) {
      if (s.tensor) {
        read_rows(s, p, transfer.rows_without_position(), out);
        require_finite(p, out, s.tensor, from.path());
      } else if (p.is_new) {
        initialise_mixer(p, model.config(), policy, out);
      } else {
        initialise_head(p, model.config(), policy.seed, out);
      }
    });
  }
  transfer.account_for_leftovers();
  return transfer.report;
}

TransferReport plan_transfer(const Encoder& model, const ModelDir& from, const TransferPolicy& policy) {
  Transfer transfer(model, from, policy);
  for (const Parameter& p : model.parameters().all()) transfer.find(p);
  transfer.account_for_leftovers();
  return transfer.report;
}

std::vector<StoredTensor> stored_as_they_are(const Encoder& model, const ModelDir& from) {
  const TransferPolicy as_it_is;
  Transfer transfer(model, from, as_it_is);
  std::vector<StoredTensor> stored;
  for (const Parameter& p : model.parameters().all()) {
    const Source s = transfer.find(p);
    const bool whole = s.tensor && !s.repeats_rows && s.tensor.dtype() == "F32";
    const auto address = whole ? reinterpret_cast<std::uintptr_t>(s.tensor.file->bytes(*s.tensor.info)) : 0;
    stored.push_back(whole && address % alignof(float) == 0 ? s.tensor : StoredTensor{});
  }
  return stored;
}

bool has_head(const ModelDir& dir) {
  return static_cast<bool>(dir.find("classifier.weight")) || dir.find("classifier.out_proj.weight");
}

EncoderConfig read_encoder_config(const ModelDir& dir) {
  EncoderConfig c = EncoderConfig::from_json(dir.config(), dir.path() + "/config.json");
  if (!has_head(dir)) c.labels.clear();
  return c;
}

std::optional<ArchitectureDifference> architecture_difference(const EncoderConfig& a, const EncoderConfig& b) {
  const auto type = [](const EncoderConfig& c) { return c.family == Family::bert ? "bert" : "roberta"; };
  if (a.family != b.family) return ArchitectureDifference{"model_type", type(a), type(b)};
  const std::pair<const char*, std::int64_t EncoderConfig::*> sizes[] = {
      {"num_hidden_layers", &EncoderConfig::layers},   {"hidden_size", &EncoderConfig::hidden},
      {"num_attention_heads", &EncoderConfig::heads},  {"intermediate_size", &EncoderConfig::ffn},
      {"type_vocab_size", &EncoderConfig::type_vocab}, {"vocab_size", &EncoderConfig::vocab_size}};
  for (const auto& [key, size] : sizes)
    if (a.*size != b.*size) return ArchitectureDifference{key, std::to_string(a.*size), std::to_string(b.*size)};
  return std::nullopt;
}

void require_transformer(const EncoderConfig& config, const ModelDir& dir) {
  for (const EncoderConfig::LayerMixer& m : config.mixers) {
    if (m.name == "attention") continue;
    const auto k = m.options.find("k");
    throw data_error(dir.path(), "is already converted (" + m.name +
                                     (k == m.options.end() ? "" : ", k = " + k->dump()) + "), wanted a transformer");
  }
}

std::unique_ptr<Tokenizer> load_tokenizer_of(const ModelDir& dir) {
  std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(dir.path());
  const std::int64_t rows = read_encoder_config(dir).vocab_size;
  const Tokenizer::LastToken& last = tokenizer->last_token();
  if (last.id >= rows)
    throw data_error(last.file, (last.content.empty() ? "a special token" : "the token " + in_quotes(last.content)) +
                                    " has the id " + std::to_string(last.id) + ", but the embedding table has " +
                                    std::to_string(rows) + " rows (vocab_size of " + dir.path() + "/config.json)");
  return tokenizer;
}

std::optional<std::int64_t> trained_length(const ModelDir& dir) {
  const std::string path = dir.existing(kTokenizerConfig);
  if (path.empty()) return std::nullopt;
  const nlohmann::json config = read_json_object(path);
  const auto it = config.find("model_max_length");
  if (it == config.end() || it->is_null()) return std::nullopt;
  if (!it->is_number() || !(it->get<double>() >= 1))
    throw data_error(path, "key 'model_max_length' is " + it->dump() + ", wanted a number of tokens");
  constexpr double kUnlimited = 1e9;  // transformers writes 1e30
  return static_cast<std::int64_t>(std::min(it->get<double>(), kUnlimited));
}

void replace_mixers(EncoderConfig& config, const std::string& layers, const std::string& mixer,
                    const nlohmann::json& options) {
  const nlohmann::json checked = find_mixer(mixer).check_options(options);
  std::vector<bool> chosen(config.mixers.size(), layers == "all");
  const auto bad = [&](const std::string& part) {
    return usage_error("--layers: '" + part + "' is no layer or range of the " + std::to_string(chosen.size()) +
                       " layers (0 to " + std::to_string(chosen.size() - 1) + ")");
  };
  for (std::size_t at = 0; layers != "all" && at <= layers.size();) {
    const std::size_t comma = std::min(layers.find(',', at), layers.size());
    const std::string part = layers.substr(at, comma - at);
    std::size_t first = 0, last = 0;
    int read = 0;
    if (std::sscanf(part.c_str(), "%zu-%zu%n", &first, &last, &read) == 2 && read == static_cast<int>(part.size())) {
    } else if (std::sscanf(part.c_str(), "%zu%n", &first, &read) == 1 && read == static_cast<int>(part.size())) {
      last = first;
    } else {
      throw bad(part);
    }
    if (first > last || last >= chosen.size()) throw bad(part);
    for (std::size_t i = first; i <= last; ++i) chosen[i] = true;
    at = comma + 1;
  }
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    if (!chosen[i]) continue;
    if (config.mixers[i].name != "attention")
      throw usage_error("--layers " + layers + ": layer " + std::to_string(i) + " is already converted (" +
                        config.mixers[i].name + ")");
    config.mixers[i] = {mixer, checked};
  }
}

std::unique_ptr<Encoder> load_encoder(const ModelDir& from, Allocator& memory, const Exec& exec) {
  auto model = std::make_unique<Encoder>(read_encoder_config(from));
  plan_transfer(*model, from, {});  // every complaint comes before any memory is taken
  model->parameters().allocate_frozen(memory, MemClass::weights, exec);
  load_parameters(*model, from, {});
  return model;
}

void write_weights(const ParameterSet& parameters, const std::string& path) {
  SafetensorsWriter w(path);
  for (const Parameter& p : parameters.all()) w.declare(p.name, p.shape);
  for (const Parameter& p : parameters.all())
    look_on_host(p.value, [&](const float* values) { w.write(p.name, values); });
  w.commit();
}

void read_weights(ParameterSet& parameters, const std::string& path) {
  const SafetensorsFile file(path);
  for (Parameter& p : parameters.all()) p.fill([&](float* values) { file.read_f32(p.name, p.shape, values); });
}

void save_model(const Encoder& model, const std::string& directory, const std::string& tokenizer_from,
                std::optional<std::int64_t> length) {
  AtomicDirectory out(directory);
  copy_tokenizer_files(tokenizer_from, out.staging());
  if (length) write_trained_length(out.staging(), *length);
  write_file_atomically(out.staging() + "/config.json", model.config().to_json().dump(2) + "\n");
  write_weights(model.parameters(), out.staging() + "/model.safetensors");
  out.commit();
}

}  // namespace cald
