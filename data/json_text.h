// JSON from files that nobody vouches for: one-line errors, no duplicate keys, bounded size and depth.
#pragma once
#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace cald {

inline constexpr std::size_t kMaxJsonBytes = std::size_t{64} << 20;

/// Parses `text`; errors are data_error(where, ...). Objects and arrays may nest 64 deep.
nlohmann::json parse_json(const std::string& where, std::string_view text);

/// Parses a file of at most `max_bytes`; its top level must be an object.
nlohmann::json read_json_object(const std::string& path, std::size_t max_bytes = kMaxJsonBytes);

/// What a parser's exception has to say, without its class and number, on one line of bounded length.
std::string json_error_text(const char* what);

/// `s` on one line: control characters as \xNN, what is not UTF-8 as U+FFFD, cut after `limit` bytes.
std::string one_line(std::string_view s, std::size_t limit = std::string_view::npos);

/// 'name' for messages: one_line() of at most 120 bytes.
std::string in_quotes(std::string_view name);

}  // namespace cald
