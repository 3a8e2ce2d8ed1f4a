// cald inspect: what a model directory holds, and what a conversion would do with it.
#include <cstdio>
#include <map>
#include <memory>

#include "app/cli_options.h"
#include "app/commands.h"
#include "app/text_table.h"
#include "train/model_io.h"

namespace cald {
namespace {

struct Flags {
  std::string model, mixer = "linformer", layers = "all";
  std::int64_t mixer_k = 256;
  bool tensors = false;
};

/// "encoder.layer.3" of a parameter's name, or its first two parts: the module that it is counted under.
std::string module_of(const std::string& name) {
  const std::size_t layer = name.find("layer.");
  if (layer != std::string::npos) return name.substr(0, name.find('.', layer + 6));
  return name.substr(0, name.rfind('.', name.rfind('.') - 1));
}

void print_configuration(const EncoderConfig& c) {
  std::printf(
      "%s encoder: %lld layers, %lld features, %lld heads, feed-forward %lld, vocabulary %lld, %lld positions, %s\n",
      c.family == Family::bert ? "BERT" : "RoBERTa", static_cast<long long>(c.layers), static_cast<long long>(c.hidden),
      static_cast<long long>(c.heads), static_cast<long long>(c.ffn), static_cast<long long>(c.vocab_size),
      static_cast<long long>(c.max_tokens()),
      c.labels.empty() ? "no classification head" : (std::to_string(c.labels.size()) + " classes").c_str());
  for (std::size_t i = 0; i < c.mixers.size(); ++i)
    if (c.mixers[i].name != "attention")
      std::printf("  layer %zu: %s %s\n", i, c.mixers[i].name.c_str(), c.mixers[i].options.dump().c_str());
}

void print_parameters(const Encoder& model) {
  std::vector<std::pair<std::string, std::int64_t>> modules;
  for (const Parameter& p : model.parameters().all()) {
    const std::string module = module_of(p.name);
    if (modules.empty() || modules.back().first != module) modules.emplace_back(module, 0);
    modules.back().second += p.shape.numel();
  }
  TextTable table({"module", "parameters", "f32"});
  for (const auto& [module, n] : modules)
    table.add_row({module, std::to_string(n), human_bytes(static_cast<std::size_t>(n) * sizeof(float))});
  const std::int64_t all = model.parameters().numel();
  table.add_row({"total", std::to_string(all), human_bytes(static_cast<std::size_t>(all) * sizeof(float))});
  std::printf("%s", table.str().c_str());
}

int inspect(const Flags& f) {
  const ModelDir dir(f.model);
  EncoderConfig config = read_encoder_config(dir);
  print_configuration(config);
  print_parameters(Encoder(config));
  if (f.tensors) {
    TextTable table({"tensor", "dtype", "shape"});
    for (const StoredTensor& t : dir.tensors()) table.add_row({t.name(), t.dtype(), t.info->shape_str()});
    std::printf("%s", table.str().c_str());
  }
  for (const auto& m : config.mixers)
    if (m.name != "attention") {
      std::printf("%s\n", plan_transfer(Encoder(config), dir, {}).text(true).c_str());
      return 0;
    }
  replace_mixers(config, f.layers, f.mixer,
                 f.mixer == "linformer" ? nlohmann::json{{"k", f.mixer_k}} : nlohmann::json::object());
  TransferPolicy policy;
  policy.create_mixers = policy.drop_attention = true;
  std::printf("conversion of layers %s to %s would leave\n%s\n", f.layers.c_str(), f.mixer.c_str(),
              plan_transfer(Encoder(config), dir, policy).text(true).c_str());
  return 0;
}

}  // namespace

CommandBody add_inspect(CLI::App& command) {
  auto f = std::make_shared<Flags>();
  command.add_option("model", f->model, "model directory")->required();
  command.add_option("--mixer", f->mixer, "conversion to describe")->capture_default_str();
  command.add_option("--mixer-k", f->mixer_k, "linformer: slots")
      ->check(whole_number(1, kMostRows))
      ->capture_default_str();
  command.add_option("--layers", f->layers, "layers to convert: all, or a list such as 0,2,4-5")->capture_default_str();
  command.add_flag("--tensors", f->tensors, "list every tensor with dtype and shape");
  return [f] { return inspect(*f); };
}

}  // namespace cald
