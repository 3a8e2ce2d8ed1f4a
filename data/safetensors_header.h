// The header of a safetensors file: parsing and its checks. Used by safetensors.cpp alone.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "data/safetensors.h"

namespace cald {

/// "<path>: tensor '<name>'"
std::string tensor_where(const std::string& path, std::string_view name);

/// Bytes of a tensor of this dtype and shape. Errors: unknown dtype, more than 8 extents, an extent < 0, overflow.
std::uint64_t checked_tensor_bytes(const std::string& where, const std::string& dtype,
                                   const std::vector<std::int64_t>& shape);

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  ///< sorted by name
  std::map<std::string, std::string> metadata;
};

/// Parses the header's JSON text and checks all of it against `data_bytes`, the number of bytes that follow it.
SafetensorsHeader parse_safetensors_header(const std::string& path, std::string_view text, std::uint64_t data_bytes);

}  // namespace cald
