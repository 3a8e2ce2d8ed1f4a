// The gradients of a whole step against PyTorch's in f64.
#pragma once
#include "data/safetensors.h"
#include "tests/train/golden_run.h"

namespace cald {

/// The golden runs with gradients.
inline constexpr const char* kGradientRuns[] = {"bert_finetune",      "bert_finetune_decay_clip", "bert_target",
                                                "bert_target_hybrid", "bert_trajectory_1",        "bert_trajectory_2",
                                                "roberta_target"};

inline std::vector<float> values_of(const SafetensorsFile& file, const std::string& name) {
  const TensorInfo* t = file.find(name);
  if (!t) throw Error(file.path() + " has no tensor " + name);
  std::vector<float> values(static_cast<std::size_t>(t->numel()));
  file.read_f32(*t, values.data());
  return values;
}

/// Runs step 1 of the golden run and compares the gradient of every parameter, in the L2 norm. It may be from f64 twice
/// as far as PyTorch's own f32, or bf16 by autocast, is in the worst of some runs whose weights differ by a rounding.
inline void expect_gradients_as_near_as_pytorch(const std::string& name, DeviceOption device, DTypeOption dtype) {
  const nlohmann::json golden = read_golden(name);
  TempFolder folder;
  RunOptions o = golden_options(golden, folder / "run");
  o.device = device;
  o.dtype = dtype;
  o.clip = 0;
  o.beta1 = 0;  // AdamW's first moment is the gradient then
  train_a_step(o);

  const SafetensorsFile want(kGolden + "steps/" + name + "_gradients.safetensors");
  const SafetensorsFile got(folder / "run/checkpoint/optimizer.safetensors");
  EXPECT_EQ(got.tensors().size(), 2 * want.tensors().size());  // both moments
  const nlohmann::json& distances = golden["gradients"][dtype == DTypeOption::bf16 ? "bf16" : "f32"];
  double farthest = 0;
  for (const TensorInfo& t : want.tensors()) {
    const std::vector<float> exact = values_of(want, t.name), gradient = values_of(got, "m." + t.name);
    ASSERT_EQ(gradient.size(), exact.size()) << t.name;
    double square = 0, size = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) {
      const double e = exact[i], d = gradient[i] - e;
      square += d * d;
      size += e * e;
    }
    EXPECT_LE(std::sqrt(square), 2 * distances[t.name].get<double>()) << t.name;
    if (size > 1e-12) farthest = std::max(farthest, std::sqrt(square / size));
  }
  if (dtype == DTypeOption::bf16) {
    EXPECT_GT(farthest, 1e-3) << "the gradients are exact to f32: bf16 was not used";
  }
}

}  // namespace cald
