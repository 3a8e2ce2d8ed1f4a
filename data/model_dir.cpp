#include "data/model_dir.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "data/atomic_file.h"
#include "data/json_text.h"
#include "engine/base/error.h"

namespace cald {
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::size_t kMaxTokenizerBytes = std::size_t{1} << 30;

/// Turns pytorch_model*.bin of the current folder into model.safetensors; clone() parts tensors that share storage.
constexpr const char* kConvertBin =
    "python3 -c \"import glob, torch, safetensors.torch as s; d = {}; "
    "[d.update(torch.load(f, map_location='cpu', weights_only=True)) for f in glob.glob('pytorch_model*.bin')]; "
    "s.save_file({k: v.clone().contiguous() for k, v in d.items()}, 'model.safetensors', {'format': 'pt'})\"";

bool is_file(const std::string& path) {
  std::error_code ec;
  return fs::is_regular_file(path, ec);
}

bool has_pytorch_bin(const std::string& folder) {
  std::error_code ec;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename().string();
    if (name.rfind("pytorch_model", 0) == 0 && it->path().extension() == ".bin") return true;
  }
  return false;
}

/// The index's shard names, each checked to be a plain name of a file in `folder`.
std::set<std::string> shard_names(const std::string& index_path, const std::string& folder, const json& map) {
  std::set<std::string> names;
  for (const auto& [tensor, value] : map.items()) {
    const std::string where = index_path + ": weight_map of tensor " + in_quotes(tensor);
    if (!value.is_string()) throw data_error(where, std::string("must be a file name, not ") + value.type_name());
    const std::string& shard = value.get_ref<const std::string&>();
    if (shard.empty() || shard.find_first_of("/\\") != std::string::npos || shard.find("..") != std::string::npos ||
        shard.find('\0') != std::string::npos)
      throw data_error(where, "must be a plain file name in the index's folder, not " + in_quotes(shard));
    if (names.insert(shard).second && !is_file(folder + "/" + shard))
      throw data_error(where, "the shard " + in_quotes(shard) + " is not there");
  }
  return names;
}

}  // namespace

ModelDir::ModelDir(const std::string& path) : path_(path) {
  while (path_.size() > 1 && path_.back() == '/') path_.pop_back();
  std::error_code ec;
  if (!fs::exists(path_, ec)) throw data_error(path, "no such model directory");
  if (!fs::is_directory(path_, ec)) throw data_error(path, "is not a directory; wanted a model directory");
  const std::string config_path = path_ + "/config.json";
  if (!fs::exists(config_path, ec)) {
    const bool run = is_file(path_ + "/model/config.json");
    throw data_error(path_, "not a model directory, it has no config.json" +
                                (run ? "; the model of a run lies in " + path_ + "/model" : std::string()));
  }
  config_ = std::make_unique<json>(read_json_object(config_path));
  open_weights();
}

ModelDir::~ModelDir() = default;
ModelDir::ModelDir(ModelDir&&) noexcept = default;
ModelDir& ModelDir::operator=(ModelDir&&) noexcept = default;

std::string ModelDir::existing(const std::string& name) const {
  const std::string file = path_ + "/" + name;
  return is_file(file) ? file : std::string();
}

void ModelDir::open_weights() {
  if (const std::string single = existing("model.safetensors"); !single.empty()) {
    files_.push_back(std::make_unique<SafetensorsFile>(single));
    for (const TensorInfo& t : files_[0]->tensors()) by_name_[t.name] = {files_[0].get(), &t};
  } else if (const std::string index = existing("model.safetensors.index.json"); !index.empty()) {
    open_shards(index);
  } else if (has_pytorch_bin(path_)) {
    throw data_error(
        path_,
        std::string("has weights as pytorch_model.bin only; to convert them, run in that folder: ") + kConvertBin);
  } else {
    throw data_error(path_, "has no weights; wanted model.safetensors or model.safetensors.index.json");
  }
}

void ModelDir::open_shards(const std::string& index_path) {
  const json index = read_json_object(index_path);
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object() || map->empty())
    throw data_error(index_path, "wanted an object 'weight_map' from tensor names to file names");
  for (const std::string& shard : shard_names(index_path, path_, *map)) {
    files_.push_back(std::make_unique<SafetensorsFile>(path_ + "/" + shard));
    const SafetensorsFile& file = *files_.back();
    for (const TensorInfo& t : file.tensors()) {
      const auto entry = map->find(t.name);
      if (entry == map->end())
        throw data_error(file.path(), "tensor " + in_quotes(t.name) + " is not in the index's weight_map");
      if (*entry != shard)
        throw data_error(file.path(), "tensor " + in_quotes(t.name) +
                                          " lies here, but the index's weight_map has it in " +
                                          in_quotes(entry->get_ref<const std::string&>()));
      by_name_[t.name] = {&file, &t};
    }
  }
  for (const auto& [tensor, shard] : map->items())
    if (!find(tensor))
      throw data_error(index_path, "tensor " + in_quotes(tensor) + " is not in its shard " +
                                       in_quotes(shard.get_ref<const std::string&>()));
}

StoredTensor ModelDir::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? StoredTensor{} : it->second;
}

StoredTensor ModelDir::at(std::string_view name) const {
  const StoredTensor t = find(name);
  if (!t) throw data_error(path_, "the weights have no tensor " + in_quotes(name));
  return t;
}

std::vector<StoredTensor> ModelDir::tensors() const {
  std::vector<StoredTensor> all;
  for (const auto& [name, t] : by_name_) all.push_back(t);
  return all;
}

std::vector<std::string> copy_tokenizer_files(const std::string& from, const std::string& to) {
  std::vector<std::string> copied;
  for (const char* name : {"vocab.txt", "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json",
                           "special_tokens_map.json", "added_tokens.json"}) {
    if (!is_file(from + "/" + name)) continue;
    write_file_atomically(to + "/" + name, read_text_file(from + "/" + name, kMaxTokenizerBytes));
    copied.push_back(name);
  }
  return copied;
}

}  // namespace cald
