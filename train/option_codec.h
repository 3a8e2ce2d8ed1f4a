// How a setting of each type is written and read: OptionCodec<T> has
//   accepted()     what may be written, for messages
//   placeholder()  the same in short, for --help
//   parse(s, out)  from the text of a flag; false if it is not accepted
//   text(v)        to such a text; parse(text(v)) gives v back exactly
//   fits(j)        whether a JSON value of this kind is accepted; its text is then parsed
//   json(v)        to a JSON value
#pragma once
#include <charconv>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

#include "train/option_names.h"
#include "train/options.h"

namespace cald {

/// Shortest text that reads back as `v`: "5e-5", "0.06", "2".
std::string shortest_text(double v);
/// Reads all of `s` as a finite number.
bool parse_finite(std::string_view s, double& out);

template <class T>
struct OptionCodec;

template <>
struct OptionCodec<std::string> {
  static std::string accepted() { return "a text"; }
  static std::string placeholder() { return "TEXT"; }
  static bool parse(const std::string& s, std::string& out) {
    out = s;
    return true;
  }
  static std::string text(const std::string& v) { return v; }
  static bool fits(const nlohmann::json& j) { return j.is_string(); }
  static nlohmann::ordered_json json(const std::string& v) { return v; }
};

template <>
struct OptionCodec<MemorySize> {
  static std::string accepted() { return "a number of bytes, or a text such as \"2GiB\""; }
  static std::string placeholder() { return "BYTES"; }
  static bool parse(const std::string& s, MemorySize& out) {
    out.assign(s);
    return true;
  }
  static std::string text(const MemorySize& v) { return v; }
  static bool fits(const nlohmann::json& j) { return j.is_string() || j.is_number_unsigned(); }
  static nlohmann::ordered_json json(const MemorySize& v) { return text(v); }
};

template <>
struct OptionCodec<bool> {
  static std::string accepted() { return "true or false"; }
  static std::string placeholder() { return ""; }
  static bool parse(const std::string& s, bool& out) {
    out = s == "true";
    return s == "true" || s == "false";
  }
  static std::string text(bool v) { return v ? "true" : "false"; }
  static bool fits(const nlohmann::json& j) { return j.is_boolean(); }
  static nlohmann::ordered_json json(bool v) { return v; }
};

template <class T>
requires std::is_integral_v<T>
struct OptionCodec<T> {
  static std::string accepted() { return std::is_signed_v<T> ? "a whole number" : "a whole number, not negative"; }
  static std::string placeholder() { return "N"; }
  static bool parse(const std::string& s, T& out) {
    const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), out);
    return error == std::errc() && end == s.data() + s.size();
  }
  static std::string text(T v) { return std::to_string(v); }
  static bool fits(const nlohmann::json& j) { return j.is_number_integer(); }
  static nlohmann::ordered_json json(T v) { return v; }
};

template <>
struct OptionCodec<double> {
  static std::string accepted() { return "a number"; }
  static std::string placeholder() { return "X"; }
  static bool parse(const std::string& s, double& out) { return parse_finite(s, out); }
  static std::string text(double v) { return shortest_text(v); }
  static bool fits(const nlohmann::json& j) { return j.is_number(); }
  static nlohmann::ordered_json json(double v) { return v; }
};

template <class E>
requires std::is_enum_v<E>
struct OptionCodec<E> {
  static std::string accepted() { return joined(", ", " or "); }
  static std::string placeholder() { return joined("|", "|"); }
  static bool parse(const std::string& s, E& out) {
    for (std::size_t i = 0; i < EnumNames<E>::values.size(); ++i)
      if (s == EnumNames<E>::values[i]) {
        out = static_cast<E>(i);
        return true;
      }
    return false;
  }
  static std::string text(E v) { return enum_name(v); }
  static bool fits(const nlohmann::json& j) { return j.is_string(); }
  static nlohmann::ordered_json json(E v) { return enum_name(v); }

 private:
  static std::string joined(const char* comma, const char* last) {
    std::string out;
    const std::size_t n = EnumNames<E>::values.size();
    for (std::size_t i = 0; i < n; ++i)
      out += std::string(i == 0 ? "" : i + 1 < n ? comma : last) + EnumNames<E>::values[i];
    return out;
  }
};

template <>
struct OptionCodec<StepOrShare> {
  static std::string accepted() { return "a number of steps (300), or a share of them (\"60%\")"; }
  static std::string placeholder() { return "N|P%"; }
  static bool parse(const std::string& s, StepOrShare& out);
  static std::string text(const StepOrShare& v);
  static bool fits(const nlohmann::json& j) { return j.is_number_integer() || j.is_string(); }
  static nlohmann::ordered_json json(const StepOrShare& v) {
    if (v.is_share) return text(v);
    return static_cast<std::int64_t>(v.value);
  }
};

template <>
struct OptionCodec<StopPoint> {
  using Point = OptionCodec<StepOrShare>;
  static std::string accepted() { return "a number of steps (300), a share of them (\"60%\"), or auto"; }
  static std::string placeholder() { return "N|P%|auto"; }
  static bool parse(const std::string& s, StopPoint& out) {
    out.automatic = s == "auto";
    return out.automatic || Point::parse(s, out);
  }
  static std::string text(const StopPoint& v) { return v.automatic ? "auto" : Point::text(v); }
  static bool fits(const nlohmann::json& j) { return Point::fits(j); }
  static nlohmann::ordered_json json(const StopPoint& v) {
    if (v.automatic) return "auto";
    return Point::json(v);
  }
};

/// An unset value is null in JSON and "" as a text.
template <class T>
struct OptionCodec<std::optional<T>> {
  using Inner = OptionCodec<T>;
  static std::string accepted() { return Inner::accepted(); }
  static std::string placeholder() { return Inner::placeholder(); }
  static bool parse(const std::string& s, std::optional<T>& out) { return Inner::parse(s, out.emplace()); }
  static std::string text(const std::optional<T>& v) { return v ? Inner::text(*v) : ""; }
  static bool fits(const nlohmann::json& j) { return Inner::fits(j); }
  static nlohmann::ordered_json json(const std::optional<T>& v) {
    if (!v) return nullptr;
    return Inner::json(*v);
  }
};

/// Whether a setting of this type may be absent, and T{} says so.
template <class T>
inline constexpr bool kMayBeAbsent = std::is_base_of_v<std::string, T>;
template <class T>
inline constexpr bool kMayBeAbsent<std::optional<T>> = true;

}  // namespace cald
