// Hidden states and logits of `cald states` against transformers'.
#include <algorithm>
#include <cmath>

#include "tests/app/formula_model.h"
#include "tests/app/run_program.h"

namespace cald {
namespace {

std::vector<float> read(const SafetensorsFile& file, const std::string& name) {
  const TensorInfo* t = file.find(name);
  if (t == nullptr) throw std::runtime_error(name + " is missing");
  std::vector<float> v(static_cast<std::size_t>(t->numel()));
  file.read_f32(*t, v.data());
  return v;
}

TEST(States, AgreeWithTransformersOnEveryCheckpoint) {
  int compared = 0;
  for (const auto& entry : fs::recursive_directory_iterator(kGolden + "models")) {
    const std::string io = entry.path().string(), file_name = entry.path().filename().string();
    if (file_name.rfind("io", 0) != 0) continue;
    TempFolder folder;
    const Result r = cald(folder, "states '" + with_weights(entry.path().parent_path(), folder) + "' --input '" + io +
                                      "' --output o.safetensors");
    ASSERT_EQ(r.code, 0) << io << ": " << r.err;
    const SafetensorsFile want(io), got(folder / "o.safetensors");
    std::vector<std::int64_t> mask(static_cast<std::size_t>(want.find("attention_mask")->numel()));
    want.read_i64(*want.find("attention_mask"), mask.data());
    for (const TensorInfo& t : want.tensors()) {
      const bool states = t.name.rfind("hidden_states.", 0) == 0;
      if (!states && t.name != "logits") continue;
      const std::vector<float> a = read(want, t.name), b = read(got, t.name);
      ASSERT_EQ(a.size(), b.size()) << t.name;
      const std::size_t per_position = states ? a.size() / mask.size() : 0;
      float largest = 0, error = 0;
      for (std::size_t i = 0; i < a.size(); ++i) {
        if (states && !mask[i / per_position]) continue;
        largest = std::max(largest, std::abs(a[i]));
        error = std::max(error, std::abs(a[i] - b[i]));
      }
      EXPECT_LE(error, 3e-6f * largest) << io << " " << t.name;  // a few roundings of f32 in each layer
      ++compared;
    }
  }
  EXPECT_GE(compared, 40);
}

}  // namespace
}  // namespace cald
