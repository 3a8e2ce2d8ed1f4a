// CLI11 collects texts; their meaning, and what is wrong with them, is train/option_io's matter.
#include "app/cli_options.h"

#include <algorithm>
#include <charconv>

#include "data/json_text.h"
#include "engine/base/error.h"
#include "train/nearest_name.h"

namespace cald {

namespace {

std::string flag_names(const OptionInfo& info, const std::string& positional) {
  const std::string flag = "--" + info.key;
  if (info.is_switch) return flag + ",!--no-" + info.key;
  return info.key == positional ? info.key + "," + flag : flag;
}

/// The command that the command line has come to: `app`, or a command within it.
const CLI::App& chosen(const CLI::App& app) {
  const auto subs = app.get_subcommands();
  return subs.empty() ? app : chosen(*subs.back());
}

std::string nearest_flag(const CLI::App& app, const std::string& word) {
  std::vector<std::string> known;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
  return nearest_name(word, known);
}

/// The commands, with those above them, that have this very flag: "convert, plan, bench step".
std::string commands_with(const CLI::App& app, const std::string& flag, const std::string& above = "") {
  std::string found;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    const auto flags = sub->get_options();
    const bool has =
        std::any_of(flags.begin(), flags.end(), [&](const CLI::Option* o) { return o->check_lname(flag.substr(2)); });
    const std::string name = above + sub->get_name();
    for (const std::string& more : {has ? name : "", commands_with(*sub, flag, name + " ")})
      if (!more.empty()) found += (found.empty() ? "" : ", ") + more;
  }
  return found;
}

/// The usage error of an argument that no command takes.
Error unexpected(const CLI::App& app, const std::string& word) {
  const CLI::App& command = chosen(app);
  if (word.substr(0, 1) == "-") {
    const std::string flag = word.substr(0, word.find('='));
    if (const std::string owners = flag.starts_with("--") ? commands_with(app, flag) : ""; !owners.empty())
      return usage_error("the flag " + in_quotes(flag) + " belongs to " + owners + ", not to " + command.get_name());
    return usage_error("unknown flag " + in_quotes(flag) + ", the nearest known one is " + nearest_flag(command, flag));
  }
  std::vector<std::string> commands;
  for (const CLI::App* sub : command.get_subcommands([](const CLI::App*) { return true; }))
    commands.push_back(sub->get_name());
  if (commands.empty()) return usage_error("unexpected argument " + in_quotes(word));
  return usage_error("unknown command " + in_quotes(word) + ", the nearest known one is '" +
                     nearest_name(word, commands) + "'");
}

}  // namespace

CLI::Validator whole_number(std::int64_t least, std::int64_t most) {
  const std::string range = std::to_string(least) + " to " + std::to_string(most);
  const auto check = [=](const std::string& text) -> std::string {
    std::int64_t n = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    if (error == std::errc() && end == text.data() + text.size() && least <= n && n <= most) return "";
    return "got " + in_quotes(text) + ", wanted a whole number from " + range;
  };
  return {check, range};
}

void OptionParser::add_options(CLI::App& app, const RunOptions& defaults, const KeyFilter& wanted,
                               const std::string& positional) {
  app.add_option("--recipe", recipe_, "JSON file of settings; flags win over it")->type_name("FILE");
  for (const OptionInfo& info : option_list()) {
    if (wanted && !wanted(info.key)) continue;
    const std::string names = flag_names(info, positional);
    const std::string text = option_text(defaults, info.key);
    CLI::Option* option = nullptr;
    if (info.is_switch) {
      const std::string help = info.help + (text.empty() ? "" : text == "true" ? " [yes]" : " [no]");
      option = app.add_flag(names, help);
    } else {
      option = app.add_option(names, info.help)->type_name(info.placeholder)->default_str(text);
    }
    option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    options_.emplace_back(info.key, option);
  }
}

std::vector<GivenOption> OptionParser::given() const {
  std::vector<GivenOption> all;
  for (const auto& [key, option] : options_)
    if (option->count() > 0) all.push_back({key, option->results().back()});
  return all;
}

void OptionParser::apply(RunOptions& o) const {
  const auto flags = given();
  for (const auto& [key, text] : flags)
    if (text.substr(0, 2) == "--") throw usage_error("--" + key + ": wanted a value, got the flag " + in_quotes(text));
  if (recipe_.substr(0, 2) == "--") throw usage_error("--recipe: wanted a file, got the flag " + in_quotes(recipe_));
  if (!recipe_.empty()) load_recipe(o, recipe_);
  apply_given(o, flags);
}

void parse_command_line(CLI::App& app, int argc, const char* const* argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success&) {
    throw;
  } catch (const CLI::ParseError& e) {
    // CLI11 may complain of a missing command first, where there is one that is mistyped.
    const auto left = app.remaining(true);
    if (!left.empty()) throw unexpected(app, left.front());
    if (app.get_subcommands().empty()) {
      std::string names;
      for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
        names += (names.empty() ? "" : ", ") + command->get_name();
      throw usage_error("a command is missing, wanted one of " + names + " ('cald --help' says what they do)");
    }
    std::string what = e.what();
    std::replace(what.begin(), what.end(), '\n', ' ');
    throw usage_error(what);
  }
}

}  // namespace cald
