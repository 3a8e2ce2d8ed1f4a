// Drift against a double reference, what follows from a curve, waypoints at equal drift, and the automatic stop.
#include "train/drift.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "kernels/transfer.h"
#include "tests/train/golden_run.h"
#include "tests/train/usage_message.h"
#include "train/batch_input.h"
#include "train/cost.h"
#include "train/drift_record.h"

namespace cald {
namespace {

namespace fs = std::filesystem;

RunOptions drift_options(const std::string& output, std::int64_t steps) {
  RunOptions o = golden_options(read_golden("bert_finetune"), output);
  o.dev = o.train;
  o.steps = steps;
  o.drift = true;
  o.drift_inputs = 7;
  o.eval_batch_size = 3;
  o.threads = 1;
  o.learning_rate = 1e-3;
  return o;
}

/// States of one example, [state][position * feature].
std::vector<std::vector<float>> states_of(const Encoder& model, const EncodedTask& task, std::int64_t row) {
  HeapAllocator heap;
  Context c(exec_on(Device::cpu, 1), heap);
  const TokenBatch batch = gather(task, {row}, model.config().pad_id);
  const LabelledInput in = make_input(c, 1, batch.seq, &batch, model.config());
  Tape tape(c, false);
  const EncoderOutput out = model.forward(tape, in.encoder, {}, true);
  std::vector<std::vector<float>> states;
  for (const Tensor& h : out.states) {
    states.emplace_back(static_cast<std::size_t>(h.numel()));
    c.launch(Download{h, states.back().data()});
    c.synchronize();
  }
  return states;
}

std::vector<double> layer_norm(const float* x, std::size_t n) {
  double mean = 0, variance = 0;
  for (std::size_t i = 0; i < n; ++i) mean += static_cast<double>(x[i]) / static_cast<double>(n);
  for (std::size_t i = 0; i < n; ++i) variance += std::pow(x[i] - mean, 2) / static_cast<double>(n);
  std::vector<double> y(n);
  for (std::size_t i = 0; i < n; ++i) y[i] = (x[i] - mean) / std::sqrt(variance + 1e-5);
  return y;
}

TEST(Drift, AgreesWithADoubleReferenceAtEveryMeasuredStep) {
  TempFolder folder;
  RunOptions o = drift_options(folder / "run", 6);
  o.keep_waypoints = 6;  // a model after each step
  train(o);
  const DriftCurve curve = read_drift(folder / "run");
  EXPECT_EQ(curve.steps, (std::vector<std::int64_t>{0, 1, 2, 4, 6}));

  HeapAllocator heap;
  const auto tokenizer = load_tokenizer(o.model);
  const auto start = load_encoder(ModelDir(o.model), heap, Exec{});
  const EncodedTask task =
      spaced_examples(load_task(o.dev, o, {tokenizer.get(), o.max_length.value_or(30)}, nullptr), o.drift_inputs);
  ASSERT_EQ(task.size(), 7);
  const auto features = static_cast<std::size_t>(start->config().hidden);
  for (std::size_t m = 1; m < curve.steps.size(); ++m) {
    const auto now = load_encoder(ModelDir(folder / ("run/waypoints/" + std::to_string(curve.steps[m]))), heap, Exec{});
    std::vector<double> sum(curve.by_state[m].size());
    double count = 0;
    for (std::int64_t row = 0; row < task.size(); ++row) {
      const auto before = states_of(*start, task, row), after = states_of(*now, task, row);
      for (std::size_t i = 0; i < sum.size(); ++i)
        for (std::size_t p = 0; p < before[i].size(); p += features) {
          const auto a = layer_norm(&before[i][p], features), b = layer_norm(&after[i][p], features);
          for (std::size_t k = 0; k < features; ++k) sum[i] += std::pow(a[k] - b[k], 2);
        }
      count += static_cast<double>(before[0].size());
    }
    for (std::size_t i = 0; i < sum.size(); ++i) {
      // Each of the two states has the error that test_states.cpp allows, on values of up to 6 standard deviations; an
      // error e of the difference changes its mean square d by at most 2 e sqrt(d) + e^2.
      const double d = sum[i] / count, e = 2 * 3e-6 * 6;
      EXPECT_NEAR(curve.by_state[m][i], d, 2 * e * std::sqrt(d) + e * e) << "step " << curve.steps[m] << " state " << i;
      EXPECT_GT(d, 0) << i;
    }
  }
  for (const double d : curve.by_state[0]) EXPECT_EQ(d, 0);
}

DriftCurve curve_of(const std::vector<std::int64_t>& steps, const std::vector<double>& drift) {
  DriftCurve c;
  c.total = steps.back();
  for (std::size_t i = 0; i < steps.size(); ++i) c.add(steps[i], {100.0, drift[i] / 2, drift[i] * 3 / 2});
  return c;
}

TEST(Drift, TellsTheModeAndTheStop) {
  const DriftCurve gradual = curve_of({0, 1, 2, 4, 100}, {0, 0.01, 0.02, 0.04, 1});
  EXPECT_DOUBLE_EQ(gradual.step_of(0.5), 4 + 96 * 0.46 / 0.96);
  EXPECT_DOUBLE_EQ(gradual.share_within(0.05), 0.04 + 0.96 / 96);
  EXPECT_STREQ(gradual.mode(), "waypoint");
  EXPECT_DOUBLE_EQ(gradual.hybrid_stop().value, 0.90);

  const DriftCurve sudden = curve_of({0, 1, 2, 4, 8, 100}, {0, 0.1, 0.3, 0.6, 0.95, 1});
  EXPECT_DOUBLE_EQ(sudden.step_of(0.5), 2 + 2 * 0.2 / 0.3);
  EXPECT_STREQ(sudden.mode(), "hybrid");
  EXPECT_DOUBLE_EQ(sudden.hybrid_stop().value, 0.08);

  // Where the drift falls back, what was reached before counts.
  const DriftCurve back = curve_of({0, 1, 100}, {0, 2, 1});
  EXPECT_DOUBLE_EQ(back.step_of(0.5), 0.25);
  EXPECT_CONTAINS(error_of([] { curve_of({0, 1}, {0, 0}).step_of(0.5); }), "have not moved");
}

TEST(Drift, WaypointsAtEqualDriftAreTheBestChoice) {
  RandomStream random(3, stream_of("drift"));
  for (int trial = 0; trial < 50; ++trial) {
    std::vector<double> drift(3 + random.below(6));
    for (double& d : drift) d = random.below(1000) / 1000.0;
    const std::size_t n = 1 + random.below(3);
    const auto off = [&](const std::vector<std::size_t>& chosen) {
      double sum = 0;
      for (std::size_t i = 0; i < n; ++i)
        sum += std::pow(drift[chosen[i]] - drift.back() * static_cast<double>(i + 1) / static_cast<double>(n), 2);
      return sum;
    };
    double best = 1e9;
    const std::function<void(std::vector<std::size_t>)> all = [&](std::vector<std::size_t> chosen) {
      if (chosen.size() == n) {
        if (chosen.back() == drift.size() - 1) best = std::min(best, off(chosen));
        return;
      }
      for (std::size_t c = chosen.empty() ? 0 : chosen.back() + 1; c < drift.size(); ++c) {
        chosen.push_back(c);
        all(chosen);
        chosen.pop_back();
      }
    };
    all({});
    const auto chosen = equal_drift(drift, static_cast<std::int64_t>(n));
    EXPECT_EQ(chosen.back(), drift.size() - 1);
    EXPECT_TRUE(std::is_sorted(chosen.begin(), chosen.end()));
    EXPECT_DOUBLE_EQ(off(chosen), best);
  }
  EXPECT_CONTAINS(error_of([] { equal_drift({1.0}, 2); }), "wanted 2 or more");
}

TEST(Drift, CandidatesAreBoundedAndKeepTheEndAndTheSpread) {
  std::vector<double> drift = {0};
  for (int i = 1; i <= 40; ++i) {
    drift.push_back(i < 20 ? i * 0.001 : 0.019 + (i - 19) * 0.1);
    const auto kept = kept_candidates(drift, 6);
    EXPECT_LE(kept.size(), 6u);
    EXPECT_EQ(kept.back(), drift.size() - 1);
    EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end()));
  }
  // The hardly different models of the beginning made room.
  EXPECT_GE(kept_candidates(drift, 6)[1], 19u);
}

TEST(Drift, ARunKeepsWaypointsAtEqualDrift) {
  TempFolder folder;
  RunOptions o = drift_options(folder / "run", 9);
  o.keep_waypoints = 3;
  o.waypoint_spacing = Spacing::drift;
  train(o);
  RunOptions every = drift_options(folder / "every", 9);
  every.keep_waypoints = 9;
  train(every);
  const DriftCurve curve = read_drift(folder / "run");
  const auto kept = kept_candidates(curve.means(), 6);
  std::vector<double> of_kept;
  for (const std::size_t i : kept) of_kept.push_back(curve.mean(i));
  const auto chosen = equal_drift(of_kept, 3);
  for (std::size_t i = 0; i < 3; ++i) {
    const std::string step = std::to_string(curve.steps[kept[chosen[i]]]);
    EXPECT_TRUE(content_of(folder / ("run/waypoints/" + std::to_string(i + 1) + "/model.safetensors")) ==
                content_of(folder / ("every/waypoints/" + step + "/model.safetensors")))
        << step;
  }
  EXPECT_FALSE(fs::exists(folder / "run/waypoints/4"));
  EXPECT_FALSE(fs::exists(folder / "run/candidates"));
}

TEST(Drift, IsPartOfTheMemoryPlan) {
  TempFolder folder;
  RunOptions o = drift_options(folder / "run", 3);
  o.warmup = {0, false};
  o.batch_size = 1;
  o.drift_inputs = o.eval_batch_size = 20;  // of one batch: more than a step or an evaluation needs
  HeapAllocator heap;
  Progress progress = quiet();
  Trainer trainer(o, heap, progress);
  const std::size_t promised = trainer.bytes_for(o.batch_size);
  trainer.plan();
  ASSERT_TRUE(trainer.memory().largest_key());
  EXPECT_EQ(trainer.memory().largest_key()->phase, "drift");
  const MemoryCost cost = memory_cost(heap, trainer.memory());
  EXPECT_EQ(cost.total(), promised) << "a budget is held with what the plan will say";
  std::size_t weights = 0;
  for (const Parameter& p : trainer.student().parameters().all()) weights += p.value.bytes();
  EXPECT_EQ(cost.by_class[static_cast<int>(MemClass::teacher)], weights) << "the copy of the start";
  const std::atomic<bool> stop{false};
  trainer.run(stop);
  EXPECT_EQ(trainer.memory().bytes(), cost.arena) << "planned again during the run";
  EXPECT_EQ(trainer.memory().measured_peak(), cost.arena);
  EXPECT_LE(heap.live_bytes(), promised);
}

class AutomaticStop : public ::testing::Test {
 protected:
  /// A run of 10 steps whose drift is recorded as far as step `until`, by a model like the golden ones.
  void put_run(const std::string& model, int until) {
    fs::create_directories(folder_ / "run/model");
    folder_.put("run/recipe.json", nlohmann::json{{"model", model}}.dump());
    std::string lines;
    for (const int step : {0, 1, 2, 4, 8, 10})
      if (step <= until)
        lines += R"({"step":)" + std::to_string(step) + R"(,"of":10,"drift":[0,)" + std::to_string(step) + "," +
                 std::to_string(3 * step) + "]}\n" + R"({"step":)" + std::to_string(step) + R"(,"loss":1})" + "\n";
    folder_.put("run/metrics.jsonl", lines);
  }
  RunOptions options(Mode mode) const {
    RunOptions o;
    o.mode = mode;
    o.model = model_;
    apply_given(o, {{"hybrid-stop", "auto"}});
    return o;
  }
  std::string refusal(RunOptions o) const {
    return error_of([&] { settle_hybrid_stop(o); });
  }

  TempFolder folder_;
  std::string model_ = kGolden + "models/bert_h36";
};

TEST_F(AutomaticStop, ComesFromTheRunOfTheTeacherOrTheWaypoints) {
  put_run(model_, 10);
  RunOptions named = options(Mode::trajectory), target = options(Mode::target), waypoint = options(Mode::waypoint);
  named.drift_from = folder_ / "run/";
  target.teacher = folder_ / "run/model";
  waypoint.waypoints = folder_ / "run";
  for (RunOptions* o : {&named, &target, &waypoint}) {
    settle_hybrid_stop(*o);
    EXPECT_EQ(option_text(*o, "hybrid-stop"), "90%");
    EXPECT_EQ(option_text(*o, "drift-from"), "");
  }
  fs::create_directories(folder_ / "run/waypoints/2");
  RunOptions from_waypoint = options(Mode::target);
  from_waypoint.teacher = folder_ / "run/waypoints/2/";
  settle_hybrid_stop(from_waypoint);
  EXPECT_EQ(option_text(from_waypoint, "hybrid-stop"), "90%");
}

TEST_F(AutomaticStop, IsRefusedWhereTheDriftIsNotTheModels) {
  EXPECT_CONTAINS(refusal(options(Mode::trajectory)), "wanted also drift-from");
  RunOptions o = options(Mode::trajectory);
  o.drift_from = folder_ / "run";
  EXPECT_CONTAINS(refusal(o), "has no drift");
  put_run(model_, 4);
  EXPECT_CONTAINS(refusal(o), "ends at step 4 of 10");
  put_run(kGolden + "models/bert_h64", 10);
  EXPECT_CONTAINS(refusal(o), "wanted one of " + model_);
  put_run("moved/elsewhere", 10);  // nothing is there to compare
  EXPECT_NO_THROW(settle_hybrid_stop(o));
  o = options(Mode::trajectory);
  o.drift_from = folder_ / "run";
  o.model = kGolden + "models/bert_deep";
  EXPECT_CONTAINS(refusal(o), "is that of 2 layers");
}

TEST_F(AutomaticStop, NamesTheBrokenLineOfTheRecord) {
  put_run(model_, 10);
  RunOptions o = options(Mode::trajectory);
  o.drift_from = folder_ / "run";
  for (const char* line : {R"({"step":0,"of":10,"drift":[0,5,5]})", R"({"step":11,"of":10,"drift":[0,5,5]})",
                           R"({"step":5,"of":10,"drift":[0,5]})", R"({"step":5,"drift":[0,5,5]})",
                           R"({"step":5,"of":10,"drift":["a",5,5]})"}) {
    folder_.put("run/metrics.jsonl", R"({"step":0,"of":10,"drift":[0,0,0]})" + std::string("\n") + line + "\n");
    EXPECT_CONTAINS(refusal(o), "metrics.jsonl:2") << line;
  }
}

}  // namespace
}  // namespace cald
