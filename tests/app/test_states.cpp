// Hidden states and logits of `cald states` against transformers'.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "data/safetensors.h"
#include "tests/app/run_program.h"
#include "train/model_io.h"

namespace cald {
namespace {

std::vector<float> read(const SafetensorsFile& file, const std::string& name) {
  const TensorInfo* t = file.find(name);
  if (t == nullptr) throw std::runtime_error(name + " is missing");
  std::vector<float> v(static_cast<std::size_t>(t->numel()));
  file.read_f32(*t, v.data());
  return v;
}

/// by_formula() of scripts/golden/make_model_golden.py.
float formula_weight(const std::string& name, const Shape& shape, std::uint64_t element) {
  std::uint64_t x = 0xCBF29CE484222325u;
  for (const char c : name) x = (x ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  x += element + 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  x ^= x >> 31;
  const double u = static_cast<double>(x >> 40) / 16777216.0 - 0.5;
  if (name.ends_with("LayerNorm.weight")) return static_cast<float>(1 + u / 5);
  return static_cast<float>(shape.rank() == 1 ? u / 5 : u * std::sqrt(12.0 / static_cast<double>(shape[-1])));
}

/// The model's directory; a copy in `folder` with weights by formula where the repository has none.
std::string with_weights(const fs::path& model, const TempFolder& folder) {
  for (const auto& e : fs::directory_iterator(model))
    if (e.path().filename().string().rfind("model", 0) == 0) return model.string();
  const std::string config_path = (model / "config.json").string();
  const Encoder encoder(EncoderConfig::from_json(nlohmann::json::parse(content_of(config_path)), config_path));
  const std::string copy = folder / "model";
  fs::create_directory(copy);
  fs::copy(config_path, copy);
  SafetensorsWriter out(copy + "/model.safetensors");
  for (const Parameter& p : encoder.parameters().all()) out.declare(p.name, p.shape);
  for (const Parameter& p : encoder.parameters().all()) {
    std::vector<float> values(static_cast<std::size_t>(p.shape.numel()));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = formula_weight(p.name, p.shape, i);
    out.write(p.name, values.data());
  }
  out.commit();
  return copy;
}

TEST(States, AgreeWithTransformersOnEveryCheckpoint) {
  int compared = 0;
  for (const auto& entry : fs::recursive_directory_iterator(kGolden + "models")) {
    const std::string io = entry.path().string(), file_name = entry.path().filename().string();
    if (file_name.rfind("io", 0) != 0) continue;
    TempFolder folder;
    const Result r = cald(folder, "states '" + with_weights(entry.path().parent_path(), folder) + "' --input '" + io +
                                      "' --output o.safetensors");
    ASSERT_EQ(r.code, 0) << io << ": " << r.err;
    const SafetensorsFile want(io), got(folder / "o.safetensors");
    std::vector<std::int64_t> mask(static_cast<std::size_t>(want.find("attention_mask")->numel()));
    want.read_i64(*want.find("attention_mask"), mask.data());
    for (const TensorInfo& t : want.tensors()) {
      const bool states = t.name.rfind("hidden_states.", 0) == 0;
      if (!states && t.name != "logits") continue;
      const std::vector<float> a = read(want, t.name), b = read(got, t.name);
      ASSERT_EQ(a.size(), b.size()) << t.name;
      const std::size_t per_position = states ? a.size() / mask.size() : 0;
      float largest = 0, error = 0;
      for (std::size_t i = 0; i < a.size(); ++i) {
        if (states && !mask[i / per_position]) continue;
        largest = std::max(largest, std::abs(a[i]));
        error = std::max(error, std::abs(a[i] - b[i]));
      }
      EXPECT_LE(error, 3e-6f * largest) << io << " " << t.name;  // a few roundings of f32 in each layer
      ++compared;
    }
  }
  EXPECT_GE(compared, 40);
}

}  // namespace
}  // namespace cald
