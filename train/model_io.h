// Encoders from and to model directories, with a report that accounts for every tensor.
#pragma once
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/model_dir.h"
#include "data/tokenizer.h"
#include "models/encoder.h"

namespace cald {

/// What became of every tensor when parameters were filled from a checkpoint.
struct TransferReport {
  struct Entry {
    std::string parameter, source, note;
    std::int64_t numel;
  };
  std::vector<Entry> copied;   ///< same name
  std::vector<Entry> mapped;   ///< another name, or rows repeated
  std::vector<Entry> created;  ///< not in the checkpoint: initialised
  std::vector<Entry> dropped;  ///< in the checkpoint, not in the model

  /// One line with counts; with `names`, a line for everything that was not simply copied.
  std::string text(bool names) const;
  nlohmann::json json() const;
};

/// What a load may create or leave behind. Anything else that is missing, left over or of another shape is an Error.
struct TransferPolicy {
  bool create_head = false;     ///< the checkpoint has no classification head
  bool replace_head = false;    ///< its head is not wanted (other labels)
  bool create_mixers = false;   ///< conversion: new mixer parameters
  bool drop_attention = false;  ///< conversion: attention's own parameters have no place in the new mixer
  std::uint64_t seed = 0;
  double typical_length = 32;  ///< tokens, for starts that imitate attention
  std::int64_t longest = 128;
};

/// Fills the allocated parameters of `model` from the directory, those alone that are `wanted` if that is given. A
/// longer position table repeats the checkpoint's rows.
TransferReport load_parameters(Encoder& model, const ModelDir& from, const TransferPolicy& policy,
                               const std::function<bool(const Parameter&)>& wanted = {});
/// The same accounting without memory: what load_parameters would do.
TransferReport plan_transfer(const Encoder& model, const ModelDir& from, const TransferPolicy& policy);

/// For each parameter the tensor that is its value as it stands: whole, f32 and aligned; absent where there is none.
std::vector<StoredTensor> stored_as_they_are(const Encoder& model, const ModelDir& from);

/// True if the directory's weights hold a classification head.
bool has_head(const ModelDir& dir);
/// The configuration, without labels where the directory has no head.
EncoderConfig read_encoder_config(const ModelDir& dir);

/// A key of config.json, with its values, in which two models are not of one architecture.
struct ArchitectureDifference {
  std::string key, a, b;
};
/// The first such key, if there is one. Positions, which may be extended, labels and mixers have no part in it.
std::optional<ArchitectureDifference> architecture_difference(const EncoderConfig& a, const EncoderConfig& b);
/// Error where `dir`, whose configuration this is, is no transformer: some of its layers have another mixer already.
void require_transformer(const EncoderConfig& config, const ModelDir& dir);

/// The directory's tokenizer. Error if it has a token whose id has no row in the model's embedding table.
std::unique_ptr<Tokenizer> load_tokenizer_of(const ModelDir& dir);
/// The longest input that the model was trained with, in tokens: `model_max_length` of tokenizer_config.json, which
/// transformers reads too. Nothing where the file does not say; published ones may say more than there are positions.
std::optional<std::int64_t> trained_length(const ModelDir& dir);

/// Replaces the mixers of `layers` ("all" or a list such as "0,2,4-5") by `mixer` with its options.
void replace_mixers(EncoderConfig& config, const std::string& layers, const std::string& mixer,
                    const nlohmann::json& options);

/// An encoder ready to run, without gradients, for evaluation and prediction; `exec` is that of its passes.
std::unique_ptr<Encoder> load_encoder(const ModelDir& from, Allocator& memory, const Exec& exec);

/// Writes a model directory atomically; the tokenizer's files are copied from `tokenizer_from`, with `length` as the
/// new trained_length() if that is given.
void save_model(const Encoder& model, const std::string& directory, const std::string& tokenizer_from,
                std::optional<std::int64_t> length);
/// The parameters' values alone, to and from a safetensors file that holds exactly them.
void write_weights(const ParameterSet& parameters, const std::string& path);
void read_weights(ParameterSet& parameters, const std::string& path);

}  // namespace cald
