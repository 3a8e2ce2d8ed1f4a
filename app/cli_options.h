// The settings of a run on the command line: a flag for each key, --recipe FILE, and errors that name the nearest
// known flag. The only place, beside the commands themselves, that knows CLI11.
#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "train/option_io.h"
#include "train/options.h"

namespace cald {

/// A check of a flag's value: a whole number from `least` to `most`.
CLI::Validator whole_number(std::int64_t least, std::int64_t most);

class OptionParser {
 public:
  /// Which keys a command has; an empty function stands for all.
  using KeyFilter = std::function<bool(std::string_view key)>;

  /// Adds --KEY TEXT (--KEY and --no-KEY for switches) to `app` for every wanted key, with the defaults that `defaults`
  /// has, and --recipe FILE. The key `positional`, if not empty, may also stand without its flag.
  void add_options(CLI::App& app, const RunOptions& defaults, const KeyFilter& wanted = {},
                   const std::string& positional = "");

  /// After the command line is parsed: sets what the file of --recipe says, and over it the flags that were given.
  /// `o` should hold the defaults. Usage errors: see load_recipe and apply_given; a flag whose value is another flag.
  void apply(RunOptions& o) const;

  /// The flags that were given, without those of the recipe's file.
  std::vector<GivenOption> given() const;

 private:
  std::string recipe_;
  std::vector<std::pair<std::string, CLI::Option*>> options_;  // by key; CLI::App owns them
};

/// CLI::App::parse whose errors are usage errors, an unknown flag or command with the nearest known one. --help and
/// --version leave as CLI::Success, for CLI::App::exit.
void parse_command_line(CLI::App& app, int argc, const char* const* argv);

}  // namespace cald
