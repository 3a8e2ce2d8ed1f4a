// The settings of a run as JSON (recipe.json) and as flags, their checks, and the presets of the method. All of it
// follows the visitor of RunOptions, so that a new setting is read, written, listed and documented by itself.
#pragma once
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "train/options.h"

namespace cald {

/// What --help and the documents say about one setting.
struct OptionInfo {
  std::string key;           ///< kebab case; the flag is --key
  std::string help;          ///< with the unit
  std::string placeholder;   ///< "N", "X", "TEXT", "sum|mean", ...; empty for yes or no
  std::string default_text;  ///< empty: not set, or it depends on other settings
  bool is_switch = false;    ///< yes or no: --key, --no-key, --key=true
};

/// All settings, in the order of the visitor.
const std::vector<OptionInfo>& option_list();

/// One setting as it would be written after its flag; empty if it is not set.
std::string option_text(const RunOptions& o, std::string_view key);

/// Whether a setting means anything to this run: teacher only does in mode target, epochs only without steps, ...
bool option_applies(const RunOptions& o, std::string_view key);

/// The settings that apply, in the visitor's order; those that are not set, and empty texts, are left out.
/// options_from_json gives the same settings back, doubles to the bit.
nlohmann::ordered_json options_to_json(const RunOptions& o);

/// Sets what `j` has; null sets a setting that may be absent back to that. `where` is named by the errors, which are
/// usage errors: an unknown key (with the nearest known one), a wrong type, steps together with epochs.
void options_from_json(RunOptions& o, const nlohmann::json& j, const std::string& where);

/// options_from_json of a file; any failure is a usage error that names the file.
void load_recipe(RunOptions& o, const std::string& path);

/// A flag that was given: `text` is what followed it.
struct GivenOption {
  std::string key, text;
};

/// Sets what was given, in that order, over what `o` holds (defaults, then a recipe): a given `epochs` also takes the
/// place of the recipe's `steps`. Usage errors: an unknown key, a text that is not accepted, steps and epochs at once.
void apply_given(RunOptions& o, const std::vector<GivenOption>& given);

/// Sets the settings of these keys back to their defaults.
void reset_options(RunOptions& o, const std::function<bool(std::string_view key)>& keys);

/// Fills kd_squared, ld_embeddings, ld_reduce and ld_pads where they are not set, from the preset.
void resolve_preset(RunOptions& o);

/// Fills mixer_k and mixer_share where they are not set, unless they are the given student's.
void resolve_mixer(RunOptions& o);

/// Checks ranges, and settings that contradict each other: one that does not apply may not differ from its default. A
/// usage error names the first that is wrong. That `model`, `train` and `output` are there is not asked here: see
/// require_options.
void validate(const RunOptions& o);

/// A usage error if one of the keys (of text settings) is empty.
void require_options(const RunOptions& o, const std::vector<std::string>& keys);

}  // namespace cald
