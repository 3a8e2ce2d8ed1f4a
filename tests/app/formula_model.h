// Models whose weights follow from a formula, since files of them would be large.
#pragma once
#include <cmath>
#include <nlohmann/json.hpp>

#include "data/safetensors.h"
#include "models/encoder.h"
#include "tests/data/temp_folder.h"

namespace cald {

namespace fs = std::filesystem;

/// by_formula() of scripts/golden/make_model_golden.py.
inline float formula_weight(const std::string& name, const Shape& shape, std::uint64_t element) {
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
inline std::string with_weights(const fs::path& model, const TempFolder& folder) {
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

}  // namespace cald
