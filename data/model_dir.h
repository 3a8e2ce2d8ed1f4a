// A model directory in Hugging Face's layout: config.json, the weights in one safetensors file or in shards, and the
// tokenizer's files.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "data/safetensors.h"

namespace cald {

/// A tensor in one of the directory's weight files; valid as long as its ModelDir.
struct StoredTensor {
  const SafetensorsFile* file = nullptr;
  const TensorInfo* info = nullptr;

  explicit operator bool() const { return info != nullptr; }
  const std::string& name() const { return info->name; }
  const std::string& dtype() const { return info->dtype; }
  const std::vector<std::int64_t>& shape() const { return info->shape; }
  /// As SafetensorsFile::read_f32.
  void read_f32(float* out, std::int64_t pitch = 0) const { file->read_f32(*info, out, pitch); }
  void read_i64(std::int64_t* out) const { file->read_i64(*info, out); }
};

/// An opened model directory. The weights come from model.safetensors or, without it, from the shards that
/// model.safetensors.index.json names: plain file names within the directory, where the index and the shards must name
/// the same tensors. Errors name the file and what was expected of it.
class ModelDir {
 public:
  explicit ModelDir(const std::string& path);
  ~ModelDir();
  ModelDir(ModelDir&&) noexcept;
  ModelDir& operator=(ModelDir&&) noexcept;

  const std::string& path() const { return path_; }
  /// config.json; an object.
  const nlohmann::json& config() const { return *config_; }

  /// False if the weights have no such tensor.
  StoredTensor find(std::string_view name) const;
  /// As find(), but a missing tensor is an Error that names it.
  StoredTensor at(std::string_view name) const;
  /// All tensors of all weight files, sorted by name.
  std::vector<StoredTensor> tensors() const;

  /// Path of tokenizer.json, or of vocab.txt (WordPiece); empty if the directory has none.
  std::string tokenizer_json() const { return existing("tokenizer.json"); }
  std::string vocab_txt() const { return existing("vocab.txt"); }
  /// "<path>/<name>" if that is a file, else empty.
  std::string existing(const std::string& name) const;

 private:
  void open_weights();
  void open_shards(const std::string& index_path);

  std::string path_;
  std::unique_ptr<nlohmann::json> config_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, StoredTensor, std::less<>> by_name_;
};

/// Copies those of vocab.txt, vocab.json, merges.txt, tokenizer.json, tokenizer_config.json, special_tokens_map.json
/// and added_tokens.json that `from` has; the names of what was copied.
std::vector<std::string> copy_tokenizer_files(const std::string& from, const std::string& to);

}  // namespace cald
