// Copies of a small model with something changed.
#pragma once
#include <cstdint>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>

#include "tests/app/run_program.h"

namespace cald {

/// A copy of a model of tests/golden in `folder`, under `name`.
inline void copy_model(const TempFolder& folder, const std::string& golden, const std::string& name) {
  fs::copy(kGolden + golden, folder / name, fs::copy_options::recursive);
}

/// Changes a JSON file of `folder`.
inline void edit_json(const TempFolder& folder, const std::string& file,
                      const std::function<void(nlohmann::json&)>& edit) {
  nlohmann::json j = nlohmann::json::parse(content_of(folder / file));
  edit(j);
  folder.put(file, j.dump());
}

/// Sets all elements of an F32 tensor in NAME/model.safetensors.
inline void fill_tensor(const TempFolder& folder, const std::string& name, const std::string& tensor, float value) {
  const std::string file = name + "/model.safetensors";
  std::string bytes = content_of(folder / file);
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  const auto at = nlohmann::json::parse(bytes.substr(8, header)).at(tensor).at("data_offsets");
  for (auto i = at[0].get<std::size_t>(); i < at[1].get<std::size_t>(); i += sizeof value)
    std::memcpy(bytes.data() + 8 + header + i, &value, sizeof value);
  folder.put(file, bytes);
}

/// One command line that must be refused.
struct Refusal {
  std::string arguments;
  int code;
  std::string message;  ///< part of the one line
};

/// Each gives its exit code and one line on stderr, and leaves `folder` as it was.
inline void expect_refused(const TempFolder& folder, const std::vector<Refusal>& cases) {
  const std::set<std::string> before = folder.names();
  for (const Refusal& c : cases) {
    const Result r = cald(folder, c.arguments);
    expect_one_line_error(r, c.code, c.message, c.arguments);
    EXPECT_EQ(r.out, "") << c.arguments;
    EXPECT_EQ(folder.names(), before) << c.arguments;
  }
}

}  // namespace cald
