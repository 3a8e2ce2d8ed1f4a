// Whole training steps on the emulated CUDA device against the same on the CPU.
#include <cmath>

#include "data/safetensors.h"
#include "tests/train/golden_run.h"

namespace cald {
namespace {

constexpr std::int64_t kSteps = 5;

/// The golden run `name`, cut to kSteps, with dropout; what it leaves lies in `output`.
RunOptions train_on(DeviceOption device, const char* name, const std::string& output) {
  RunOptions o = golden_options(read_golden(name), output);
  o.steps = kSteps;
  o.dropout = 0.1;
  o.device = device;
  if (o.hybrid_stop) o.hybrid_stop = StepOrShare{3, false};
  train(o);
  return o;
}

std::vector<float> values_of(const SafetensorsFile& file, const std::string& name) {
  const TensorInfo* t = file.find(name);
  if (!t) throw Error(file.path() + " has no tensor " + name);
  std::vector<float> values(static_cast<std::size_t>(t->numel()));
  file.read_f32(*t, values.data());
  return values;
}

double largest(const std::vector<float>& values) {
  double m = 0;
  for (float v : values) m = std::max(m, std::abs(static_cast<double>(v)));
  return m;
}

class CudaTraining : public ::testing::TestWithParam<const char*> {};

TEST_P(CudaTraining, LossesAndWeightsAgreeWithTheCpu) {
  TempFolder folder;
  train_on(DeviceOption::cpu, GetParam(), folder / "cpu");
  const RunOptions o = train_on(DeviceOption::cuda, GetParam(), folder / "cuda");
  const auto cpu = read_lines(folder / "cpu/metrics.jsonl"), cuda = read_lines(folder / "cuda/metrics.jsonl");
  ASSERT_EQ(cuda.size(), static_cast<std::size_t>(kSteps));
  ASSERT_EQ(cpu.size(), cuda.size());
  for (std::size_t step = 0; step < cpu.size(); ++step)
    for (const char* term : {"loss", "ce", "kd", "ld", "teacher_ce"}) {
      ASSERT_EQ(cpu[step].contains(term), cuda[step].contains(term)) << term << " at step " << step + 1;
      if (!cpu[step].contains(term)) continue;
      const double want = cpu[step][term].get<double>();
      // Dropout is on: with one element more or less dropped they would differ by far more.
      EXPECT_NEAR(cuda[step][term].get<double>(), want, 1e-5 * std::abs(want)) << term << " at step " << step + 1;
    }

  const SafetensorsFile want(folder / "cpu/model/model.safetensors"), got(folder / "cuda/model/model.safetensors");
  const double reach = kSteps * std::max(o.learning_rate, o.new_learning_rate.value_or(0));  // AdamW's, at most
  double moved = 0;
  for (const TensorInfo& t : want.tensors()) {
    const std::vector<float> a = values_of(want, t.name), b = values_of(got, t.name);
    for (std::size_t i = 0; i < a.size(); ++i) {
      // Where a gradient is all rounding, AdamW goes either way; elsewhere its step has the gradient's relative error.
      const bool noise = t.name.find("key.bias") != std::string::npos;
      const double tolerance = noise ? 2 * reach : 1e-2 * reach + 1e-6 * largest(a);
      ASSERT_NEAR(a[i], b[i], tolerance) << t.name << "[" << i << "]";
      moved = std::max(moved, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    }
  }
  EXPECT_LT(moved, 2 * reach);
}

INSTANTIATE_TEST_SUITE_P(All, CudaTraining,
                         ::testing::Values("bert_finetune_decay_clip", "bert_target", "bert_target_hybrid",
                                           "bert_trajectory_2", "roberta_target"),
                         [](const auto& param) { return std::string(param.param); });

class CudaTrainingBf16 : public ::testing::TestWithParam<const char*> {};

TEST_P(CudaTrainingBf16, LossesAreAsNearAsAutocast) {
  const nlohmann::json golden = read_golden(GetParam());
  TempFolder folder;
  RunOptions options = golden_options(golden, folder / "run");
  options.dtype = DTypeOption::bf16;
  options.device = DeviceOption::cuda;
  train(options);
  expect_losses_as_near_as_autocast(golden, read_lines(folder / "run/metrics.jsonl"));
}

INSTANTIATE_TEST_SUITE_P(All, CudaTrainingBf16, ::testing::Values("bert_target", "bert_trajectory_1"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace cald
