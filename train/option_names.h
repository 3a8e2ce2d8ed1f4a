// The names by which a user writes the enumerators of the settings.
#pragma once
#include <array>
#include <cstddef>
#include <string>

#include "train/options.h"

namespace cald {

/// `values`: the names in kebab case, in the order of the enumerators.
template <class E>
struct EnumNames;

template <>
struct EnumNames<Mode> {
  static constexpr std::array values{"finetune", "unguided", "target", "trajectory", "waypoint"};
};
template <>
struct EnumNames<Start> {
  static constexpr std::array values{"model", "teacher"};
};
template <>
struct EnumNames<Preset> {
  static constexpr std::array values{"released", "paper"};
};
template <>
struct EnumNames<Schedule> {
  static constexpr std::array values{"constant", "linear", "cosine", "exponential"};
};
template <>
struct EnumNames<Order> {
  static constexpr std::array values{"given", "shuffled"};
};
template <>
struct EnumNames<Share> {
  static constexpr std::array values{"none", "key-value", "layerwise"};
};
template <>
struct EnumNames<ProjectionInit> {
  static constexpr std::array values{"normal", "pooling", "identity"};
};
template <>
struct EnumNames<Reduce> {
  static constexpr std::array values{"sum", "mean"};
};
template <>
struct EnumNames<Spacing> {
  static constexpr std::array values{"steps", "drift"};
};
template <>
struct EnumNames<StopTerms> {
  static constexpr std::array values{"all", "ld"};
};
template <>
struct EnumNames<DTypeOption> {
  static constexpr std::array values{"f32", "bf16"};
};
template <>
struct EnumNames<DeviceOption> {
  static constexpr std::array values{"cpu", "cuda"};
};

/// "trajectory" for Mode::trajectory.
template <class E>
std::string enum_name(E value) {
  return EnumNames<E>::values[static_cast<std::size_t>(value)];
}

}  // namespace cald
