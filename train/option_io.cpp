// Settings from and to JSON and flags, over the visitor.
#include "train/option_io.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "data/json_text.h"
#include "engine/base/error.h"
#include "train/nearest_name.h"
#include "train/option_codec.h"

namespace cald {
using nlohmann::json;
using nlohmann::ordered_json;

namespace {

template <class Field>
using CodecOf = OptionCodec<std::remove_cvref_t<Field>>;

/// Calls f(field) for the setting `key`; false if there is none.
template <class Options, class F>
bool with_option(Options& o, std::string_view key, F&& f) {
  bool found = false;
  RunOptions::visit(o, [&](const char* name, auto& field, const char*) {
    if (found || key != name) return;
    found = true;
    f(field);
  });
  return found;
}

std::string nearest_key(std::string_view key) {
  std::vector<std::string> known;
  for (const OptionInfo& info : option_list()) known.push_back(info.key);
  return nearest_name(key, known);
}

std::string shortened(std::string s) {
  constexpr std::size_t kLongest = 60;
  if (s.size() <= kLongest) return s;
  s.resize(kLongest);
  while (!s.empty() && (static_cast<unsigned char>(s.back()) & 0xC0) == 0x80) s.pop_back();
  if (!s.empty() && static_cast<unsigned char>(s.back()) >= 0xC0) s.pop_back();
  return s + "...";
}

template <class Field>
void set_from_json(Field& field, const json& j, const std::string& where, const std::string& key) {
  Field value{};
  if (kMayBeAbsent<Field> && j.is_null()) {
    field = std::move(value);
    return;
  }
  const bool good =
      CodecOf<Field>::fits(j) && CodecOf<Field>::parse(j.is_string() ? j.template get<std::string>() : j.dump(), value);
  if (!good) {
    const std::string got = j.dump(-1, ' ', false, json::error_handler_t::replace);
    throw usage_error(where + ": key '" + key + "': got " + shortened(got) + ", wanted " + CodecOf<Field>::accepted());
  }
  field = std::move(value);
}

/// The length of a run is said by steps or by epochs; of one source (a file, the flags) both cannot count.
void settle_length(RunOptions& o, bool steps_given, bool epochs_given, const std::string& steps,
                   const std::string& epochs) {
  if (steps_given && epochs_given) throw usage_error(steps + " and " + epochs + " are both given, wanted one of them");
  if (epochs_given) o.steps.reset();
}

}  // namespace

const std::vector<OptionInfo>& option_list() {
  static const std::vector<OptionInfo> list = [] {
    std::vector<OptionInfo> all;
    const RunOptions defaults;
    RunOptions::visit(defaults, [&](const char* key, const auto& field, const char* help) {
      using Codec = CodecOf<decltype(field)>;
      all.push_back({key, help, Codec::placeholder(), Codec::text(field), Codec::placeholder().empty()});
    });
    return all;
  }();
  return list;
}

std::string option_text(const RunOptions& o, std::string_view key) {
  std::string text;
  with_option(o, key, [&](const auto& field) { text = CodecOf<decltype(field)>::text(field); });
  return text;
}

ordered_json options_to_json(const RunOptions& o) {
  ordered_json j = ordered_json::object();
  RunOptions::visit(o, [&](const char* key, const auto& field, const char*) {
    if (!option_applies(o, key)) return;
    ordered_json value = CodecOf<decltype(field)>::json(field);
    if (!value.is_null() && value != "") j[key] = std::move(value);
  });
  return j;
}

void options_from_json(RunOptions& o, const json& j, const std::string& where) {
  if (!j.is_object())
    throw usage_error(where + ": got " + j.type_name() + ", wanted a JSON object with a key for each setting");
  for (const auto& [key, value] : j.items()) {
    const bool known =
        with_option(o, key, [&, &k = key, &v = value](auto& field) { set_from_json(field, v, where, k); });
    if (!known)
      throw usage_error(where + ": unknown key " + in_quotes(key) + ", the nearest known one is '" + nearest_key(key) +
                        "'");
  }
  const auto given = [&](const char* key) { return j.contains(key) && !j[key].is_null(); };
  settle_length(o, given("steps"), given("epochs"), where + ": 'steps'", "'epochs'");
}

void load_recipe(RunOptions& o, const std::string& path) {
  json j;
  try {
    j = read_json_object(path, std::size_t{1} << 20);
  } catch (const Error& e) {
    throw usage_error(e.what());
  }
  options_from_json(o, j, path);
}

void apply_given(RunOptions& o, const std::vector<GivenOption>& given) {
  for (const auto& [key, text] : given) {
    const bool known = with_option(o, key, [&, &k = key, &t = text](auto& field) {
      std::remove_cvref_t<decltype(field)> value{};
      if (!CodecOf<decltype(field)>::parse(t, value))
        throw usage_error("--" + k + ": got " + in_quotes(t) + ", wanted " + CodecOf<decltype(field)>::accepted());
      field = std::move(value);
    });
    if (!known) throw usage_error("unknown flag --" + key + ", the nearest known one is --" + nearest_key(key));
  }
  const auto has = [&](const char* key) {
    return std::any_of(given.begin(), given.end(), [&](const GivenOption& g) { return g.key == key; });
  };
  settle_length(o, has("steps"), has("epochs"), "--steps", "--epochs");
}

void reset_options(RunOptions& o, const std::function<bool(std::string_view)>& keys) {
  const RunOptions defaults;
  RunOptions::visit(o, [&](const char* key, auto& field, const char*) {
    if (!keys(key)) return;
    with_option(defaults, key, [&](const auto& value) {
      if constexpr (std::is_same_v<decltype(value), const std::remove_reference_t<decltype(field)>&>) field = value;
    });
  });
}

void resolve_preset(RunOptions& o) {
  const bool released = o.preset == Preset::released;
  if (!o.kd_squared) o.kd_squared = released;
  if (!o.ld_embeddings) o.ld_embeddings = released;
  if (!o.ld_reduce) o.ld_reduce = released ? Reduce::sum : Reduce::mean;
  if (!o.ld_pads) o.ld_pads = released;
}

void resolve_mixer(RunOptions& o) {
  if (o.mode == Mode::finetune || !o.student.empty()) return;
  if (!o.mixer_k) o.mixer_k = 256;
  if (!o.mixer_share) o.mixer_share = Share::none;
}

}  // namespace cald
