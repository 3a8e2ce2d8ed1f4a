// Whole training steps on the emulated CUDA device against the same on the CPU.
#include <cmath>

#include "tests/train/golden_gradients.h"

namespace cald {
namespace {

constexpr std::int64_t kSteps = 5;

/// The golden run `golden`, cut to kSteps, with dropout; what it leaves lies in `output`.
RunOptions options_on(DeviceOption device, const nlohmann::json& golden, const std::string& output) {
  RunOptions o = golden_options(golden, output);
  o.steps = kSteps;
  o.dropout = 0.1;
  o.device = device;
  if (o.hybrid_stop) o.hybrid_stop = StepOrShare{3, false};
  return o;
}

double norm(const std::vector<float>& values) {
  double square = 0;
  for (float v : values) square += static_cast<double>(v) * static_cast<double>(v);
  return std::sqrt(square);
}

/// How far two runs' weights may be apart after kSteps of AdamW at `rate`, if their gradients differ by at most `noise`
/// in each element. m^ and v^(1/2) are a mean and a norm of an element's gradients, with equal weights but for a few
/// percent, so each differs by at most `noise`, and |m^| <= c v^(1/2): a step's quotient by (1 + c) noise / v^(1/2),
/// and by 2c at most. `first` and `last` are v after the first and the last step; v^(1/2) at step t is at least the
/// first gradient's share of it.
double update_tolerance(const RunOptions& o, double rate, double noise, float first, float last) {
  if (last == 0) return 0;    // never had a gradient
  constexpr double c = 1.02;  // for up to 5 steps and AdamW's usual betas
  double tolerance = 0;
  for (std::int64_t t = 1; t <= kSteps; ++t) {
    const double n = static_cast<double>(t);
    const double v = first * std::pow(o.beta2, n - 1) / (1 - std::pow(o.beta2, n));
    tolerance += v > 0 ? std::min(2 * c, (1 + c) * noise / std::sqrt(v)) : 2 * c;
  }
  return rate * tolerance;
}

class CudaTraining : public ::testing::TestWithParam<const char*> {};

TEST_P(CudaTraining, LossesAndWeightsAgreeWithTheCpu) {
  const nlohmann::json golden = read_golden(GetParam());
  TempFolder folder;
  const RunOptions o = options_on(DeviceOption::cuda, golden, folder / "cuda");
  train(o);
  train(options_on(DeviceOption::cpu, golden, folder / "cpu"));
  train_a_step(options_on(DeviceOption::cpu, golden, folder / "first"));
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

  const SafetensorsFile gradients(kGolden + "steps/" + GetParam() + "_gradients.safetensors");
  const SafetensorsFile first(folder / "first/checkpoint/optimizer.safetensors"),
      last(folder / "cpu/checkpoint/optimizer.safetensors");
  const SafetensorsFile want(folder / "cpu/model/model.safetensors"), got(folder / "cuda/model/model.safetensors");
  const double rate = std::max(o.learning_rate, o.new_learning_rate.value_or(0));
  std::size_t elements = 0, told = 0;
  for (const TensorInfo& t : want.tensors()) {
    // Each run's gradients are from exact ones twice as far as PyTorch's f32 (golden_gradients.h), relative to their
    // size: that of all steps' together, where an element's sum of squares is v / (1 - beta2). That is the noise of a
    // whole tensor; one element is given a 32nd of it, as if it were spread evenly over a thousand.
    const double relative =
        2 * 2 * golden["gradients"]["f32"][t.name].get<double>() / norm(values_of(gradients, t.name));
    const std::vector<float> v1 = values_of(first, "v." + t.name), v5 = values_of(last, "v." + t.name);
    double square = 0;
    for (float v : v5) square += static_cast<double>(v) / (1 - o.beta2);
    const double noise = relative * std::sqrt(square) / 32;
    const std::vector<float> a = values_of(want, t.name), b = values_of(got, t.name);
    for (std::size_t i = 0; i < a.size(); ++i) {
      const double update = update_tolerance(o, rate, noise, v1[i], v5[i]);
      const double rounding = std::ldexp(kSteps, -23) * std::abs(static_cast<double>(a[i]));
      ASSERT_NEAR(a[i], b[i], update + rounding) << t.name << "[" << i << "]";
      ++elements;
      told += update < 1e-2 * rate * kSteps;
    }
  }
  EXPECT_GT(told, elements / 2) << "the gradients' noise hides the updates";
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

class CudaGradients : public ::testing::TestWithParam<const char*> {};

TEST_P(CudaGradients, AreAsNearToF64AsPyTorchIs) {
  expect_gradients_as_near_as_pytorch(GetParam(), DeviceOption::cuda, DTypeOption::f32);
}

TEST_P(CudaGradients, InBf16AreAsNearAsAutocast) {
  expect_gradients_as_near_as_pytorch(GetParam(), DeviceOption::cuda, DTypeOption::bf16);
}

INSTANTIATE_TEST_SUITE_P(All, CudaGradients, ::testing::ValuesIn(kGradientRuns),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace cald
