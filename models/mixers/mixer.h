// What a token mixer is: the part of a layer in which tokens see each other. Attention is one; what replaces it in a
// student is another. A mixer is one file in this folder, NAME.cpp, that defines `MixerType mixer_NAME()`; the build
// finds it by its name, and with it come checkpoints, conversion and tests.
#pragma once
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/autograd.h"
#include "engine/base/rng.h"

namespace cald {

/// What of the batch a mixer may look at, beside the hidden states.
struct MixerInput {
  Tensor mask;      ///< (B, S) i32, 1 = valid
  Tensor rank;      ///< (B, S) i32, number of the token among its sample's valid ones, -1 for pads
  Tensor lengths;   ///< (B) i32, valid tokens
  Tensor samples;   ///< (B) i32, sample numbers for the RNG
  Dropout dropout;  ///< of the mixing weights
};

class Mixer {
 public:
  virtual ~Mixer() = default;
  /// x: (B, S, D) -> (B, S, D), before the output projection.
  virtual Tensor forward(Tape& tape, const Tensor& x, const MixerInput& in) const = 0;
};

/// What a mixer is built from: it declares its parameters under `prefix` ("bert.encoder.layer.3.attention.self.").
struct MixerBuild {
  ParameterSet& parameters;
  std::string prefix;
  std::string first_prefix;  ///< of the first layer with this mixer and options, for parameters that layers share
  std::int64_t hidden, heads, max_positions;
  const nlohmann::json& options;
};

/// How new parameters get their values at conversion.
struct MixerInit {
  const Parameter& parameter;  ///< one that the mixer declared as new
  float* values;               ///< its elements on the host, to be set
  const nlohmann::json& options;
  std::uint64_t seed;
  double typical_length;  ///< mean length of the training data, in tokens
  std::int64_t longest;   ///< its longest length
};

struct MixerType {
  std::string name;
  std::unique_ptr<Mixer> (*build)(const MixerBuild&);
  /// Absent if the mixer declares nothing new.
  void (*initialise)(const MixerInit&) = nullptr;
  /// Checks the options' names and values and fills in defaults; Error names the key.
  nlohmann::json (*check_options)(const nlohmann::json&);
};

/// Those of this folder, by name.
const std::vector<MixerType>& all_mixers();
/// Error that lists the known names if there is no such mixer.
const MixerType& find_mixer(const std::string& name);

}  // namespace cald
