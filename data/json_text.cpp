#include "data/json_text.h"

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "data/atomic_file.h"
#include "engine/base/error.h"

namespace cald {
using nlohmann::json;

namespace {

constexpr int kMaxDepth = 64;

}  // namespace

std::string one_line(std::string_view s, std::size_t limit) {
  std::size_t n = s.size();
  if (n > limit) {
    n = limit;
    while (n > 0 && (static_cast<unsigned char>(s[n]) & 0xC0) == 0x80) --n;
  }
  // The serialiser knows how to mend UTF-8.
  const json mended = json::parse(json(s.substr(0, n)).dump(-1, ' ', false, json::error_handler_t::replace));
  std::string out;
  for (const char c : mended.get_ref<const std::string&>()) {
    const auto u = static_cast<unsigned char>(c);
    if (u >= 32 && u != 127) {
      out += c;
    } else {
      out += "\\x";
      out += "0123456789abcdef"[u >> 4];
      out += "0123456789abcdef"[u & 15];
    }
  }
  return n < s.size() ? out + "..." : out;
}

std::string in_quotes(std::string_view name) { return "'" + one_line(name, 120) + "'"; }

std::string json_error_text(const char* what) {
  std::string_view s = what;
  if (const auto end = s.find("] "); s.substr(0, 1) == "[" && end != std::string_view::npos) s.remove_prefix(end + 2);
  return one_line(s, 240);
}

json parse_json(const std::string& where, std::string_view text) {
  // The parser takes a NUL for the end of the text and would ignore what follows.
  if (const auto nul = text.find('\0'); nul != std::string_view::npos)
    throw data_error(where, "not JSON: a NUL byte at offset " + std::to_string(nul));
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int depth, json::parse_event_t event, json& value) {
    if (depth >= kMaxDepth) throw data_error(where, "nested more than " + std::to_string(kMaxDepth) + " deep");
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      throw data_error(where, "key " + in_quotes(value.get<std::string>()) + " stands twice in one object");
    return true;
  };
  try {
    return json::parse(text.begin(), text.end(), watch);
  } catch (const json::exception& e) {
    throw data_error(where, "not JSON: " + json_error_text(e.what()));
  }
}

json read_json_object(const std::string& path, std::size_t max_bytes) {
  json j = parse_json(path, read_text_file(path, max_bytes));
  if (!j.is_object()) throw data_error(path, std::string("its top level must be a JSON object, not ") + j.type_name());
  return j;
}

}  // namespace cald
