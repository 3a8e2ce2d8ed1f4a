// The tape: how gradients flow, share memory, accumulate, and fit a memory plan.
#include "engine/autograd.h"

#include <cmath>
#include <limits>
#include <string>

#include "engine/planner.h"
#include "ops/elementwise.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"
#include "tests/engine/tape_test.h"

namespace cald {
namespace {

TEST_F(TapeTest, ViewAndItsGradient) {
  Tape tape(context_);
  const Tensor x = tape.input(values({2, 3}, {1, 2, 3, 4, 5, 6}));
  const Tensor v = tape.view(x, {3, 2});
  EXPECT_EQ(v.data<float>(), x.data<float>());
  EXPECT_THROW(x.view({6}), Error) << "a differentiated tensor is viewed through the tape";
  EXPECT_THROW(x.narrow(0, 0, 1), Error);
  tape.backward(total(tape, v, values({3, 2}, {1, 2, 3, 4, 5, 6})));
  EXPECT_EQ(tape.grad(x).shape(), (Shape{2, 3}));
  EXPECT_EQ(read(tape.grad(x)), (std::vector<float>{1, 2, 3, 4, 5, 6}));
}

TEST_F(TapeTest, NarrowAndItsGradient) {
  Tape tape(context_);
  const Tensor x = tape.input(filled({2, 3}, 1));
  const Tensor part = tape.narrow(x, -1, 1, 3);
  tape.backward(total(tape, part, values({2, 2}, {1, 2, 3, 4})));
  EXPECT_EQ(read(tape.grad(x)), (std::vector<float>{0, 1, 2, 0, 3, 4}));
}

TEST_F(TapeTest, PartsThatOverlapAddUp) {
  Tape tape(context_);
  const Tensor x = tape.input(filled({4}, 1));
  const Tensor a = total(tape, tape.narrow(x, 0, 0, 3), filled({3}, 1));
  const Tensor b = total(tape, tape.narrow(x, 0, 2, 4), filled({2}, 10));
  tape.backward(plus(tape, a, b));
  EXPECT_EQ(read(tape.grad(x)), (std::vector<float>{1, 1, 11, 10}));
}

TEST_F(TapeTest, NarrowOfANarrowOfAView) {
  Tape tape(context_);
  const Tensor x = tape.input(filled({2, 6}, 1));
  const Tensor part = tape.narrow(tape.narrow(tape.view(x, {3, 4}), 1, 1, 4), 0, 1, 3);
  tape.backward(total(tape, part, values({2, 3}, {1, 2, 3, 4, 5, 6})));
  EXPECT_EQ(read(tape.grad(x)), (std::vector<float>{0, 0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6}));
}

TEST_F(TapeTest, UsesAddUp) {
  Tape tape(context_);
  const Tensor x = tape.input(filled({3}, 1));
  const Tensor y = tape.apply(Sum{}, tape.apply(Sum{}, x, x), x);
  tape.backward(plus(tape, total(tape, y, filled({3}, 1)), total(tape, x, filled({3}, 5))));
  EXPECT_EQ(read(tape.grad(x)), (std::vector<float>{8, 8, 8}));
}

TEST_F(TapeTest, DetachedTensorsAreConstants) {
  Tape tape(context_);
  const Tensor x = tape.input(filled({2}, 1)), unused = tape.input(filled({2}, 1));
  const Tensor y = tape.apply(Sum{}, x, x.detach());
  tape.backward(total(tape, y, filled({2}, 3)));
  EXPECT_EQ(read(tape.grad(x)), (std::vector<float>{3, 3}));
  EXPECT_FALSE(tape.grad(unused)) << "the loss does not depend on it";
  EXPECT_FALSE(tape.grad(y.detach()));
}

TEST_F(TapeTest, WithoutRecordingNothingIsKept) {
  Tape tape(context_, false);
  Parameter p;
  p.value = filled({4, 4}, 0.5f), p.grad = filled({4, 4}, 0), p.shape = {4, 4};
  const Tensor x = tape.input(filled({2, 4}, 1)), w = tape.parameter(p);
  EXPECT_EQ(x.variable(), -1);
  EXPECT_EQ(w.variable(), -1);
  const std::size_t before = memory_.live_bytes();
  Tensor y = tape.apply(Linear{}, x, w, Tensor{});
  y = tape.apply(Linear{}, y, w, Tensor{});
  EXPECT_EQ(memory_.live_bytes() - before, y.bytes()) << "the first product is gone";
  EXPECT_EQ(y.data<float>()[0], 4.0f);
  EXPECT_THROW(tape.backward(total(tape, y, y)), Error);
}

TEST_F(TapeTest, ParametersSetThenAdd) {
  Parameter p;
  p.name = "w";
  p.shape = {1, 2};
  p.value = values(p.shape, {1, 1});
  p.grad = filled(p.shape, std::numeric_limits<float>::quiet_NaN());
  const Tensor x = values({1, 2}, {3, 4});
  for (int step = 1; step <= 2; ++step) {
    Tape tape(context_);
    const Tensor w = tape.parameter(p), again = tape.parameter(p);
    EXPECT_EQ(w.variable(), again.variable());
    const Tensor y = tape.apply(Linear{}, x, w, Tensor{}), z = tape.apply(Linear{}, x, again, Tensor{});
    tape.backward(plus(tape, total(tape, y, filled({1, 1}, 1)), total(tape, z, filled({1, 1}, 1))));
    EXPECT_TRUE(p.has_grad);
    const auto s = static_cast<float>(step);
    EXPECT_EQ(read(p.grad), (std::vector<float>{6 * s, 8 * s})) << "both uses, added over micro-batches";
  }
  p.has_grad = false;
  Tape tape(context_);
  tape.backward(total(tape, tape.apply(Linear{}, x, tape.parameter(p), Tensor{}), filled({1, 1}, 1)));
  EXPECT_EQ(read(p.grad), (std::vector<float>{3, 4})) << "a new step sets";
}

TEST_F(TapeTest, ParameterTakesAPassedGradient) {
  // pass() cannot share memory with a parameter's gradient: it copies, then adds.
  Parameter p;
  p.shape = {2}, p.value = values({2}, {1, 1}), p.grad = filled({2}, 99);
  Tape tape(context_);
  const Tensor w = tape.parameter(p);
  tape.backward(total(tape, tape.apply(Sum{}, w, w), values({2}, {1, 2})));
  EXPECT_EQ(read(p.grad), (std::vector<float>{2, 4}));
}

TEST_F(TapeTest, FrozenParameterIsAConstant) {
  Parameter p;
  p.shape = {2}, p.value = values({2}, {1, 1});
  Tape tape(context_);
  EXPECT_EQ(tape.parameter(p).variable(), -1);
}

TEST_F(TapeTest, OutputThatNobodyUses) {
  Tape tape(context_);
  const Tensor x = tape.input(filled({2}, 1));
  tape.apply(Activate{Activation::tanh}, x);
  const Tensor loss = total(tape, x, filled({2}, 7));
  tape.apply(Activate{Activation::silu}, x);
  tape.backward(loss);
  EXPECT_EQ(read(tape.grad(x)), (std::vector<float>{7, 7}));
}

TEST_F(TapeTest, SharedGradientsAreNotCorruptedByLaterSums) {
  // a + b hands the same memory to both gradients. Then one of them is increased.
  for (int later : {0, 1}) {
    Tape tape(context_);
    const Tensor a = tape.input(filled({3}, 1)), b = tape.input(filled({3}, 1));
    const Tensor extra = total(tape, later == 0 ? a : b, filled({3}, 10));  // recorded first, so differentiated last
    const Tensor y = total(tape, tape.apply(Sum{}, a, b), filled({3}, 1));
    tape.backward(plus(tape, extra, y));
    EXPECT_EQ(tape.grad(a).data<float>()[2], later == 0 ? 11.0f : 1.0f);
    EXPECT_EQ(tape.grad(b).data<float>()[2], later == 1 ? 11.0f : 1.0f);
  }
}

TEST_F(TapeTest, SharedGradientsAreNotCorruptedByBackwardsInPlace) {
  // relu's backward would work in dy's memory, which is b's gradient too.
  Tape tape(context_);
  const Tensor x = tape.input(filled({3}, -1)), b = tape.input(filled({3}, 1));
  const Tensor y = tape.apply(Sum{}, tape.apply(Activate{Activation::relu}, x), b);
  tape.backward(total(tape, y, filled({3}, 4)));
  EXPECT_EQ(read(tape.grad(x)), (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(read(tape.grad(b)), (std::vector<float>{4, 4, 4}));
}

TEST_F(TapeTest, ViewedGradientsAreNotCorrupted) {
  Tape tape(context_);
  const Tensor x = tape.input(filled({2, 2}, -1)), b = tape.input(filled({4}, 1));
  const Tensor y = tape.apply(Sum{}, tape.view(tape.apply(Activate{Activation::relu}, x), {4}), b);
  tape.backward(plus(tape, total(tape, b, filled({4}, 1)), total(tape, y, filled({4}, 4))));
  EXPECT_EQ(read(tape.grad(x)), (std::vector<float>{0, 0, 0, 0}));
  EXPECT_EQ(read(tape.grad(b)), (std::vector<float>{5, 5, 5, 5}));
}

TEST_F(TapeTest, BackwardInPlaceTakesNoMemory) {
  const auto peak = [&](bool shared) {
    Tape tape(context_);
    const Tensor x = tape.input(filled({1000}, 1)), weights = filled({1000}, 2);
    const Tensor y = tape.apply(Activate{Activation::relu}, x);
    Tensor loss = total(tape, y, weights);
    if (shared) loss = plus(tape, loss, total(tape, x, weights));
    const std::size_t before = memory_.bytes_of(MemClass::activations);
    tape.backward(loss);
    return memory_.bytes_of(MemClass::activations) - before;
  };
  EXPECT_EQ(peak(true) - peak(false), 4000u + 8u) << "one more gradient, and those of the two loss terms";
}

TEST_F(TapeTest, SavedTensorsEndWithTheirNode) {
  Tape tape(context_);
  Tensor x = filled({1000}, 1), weights = filled({1000}, 1);
  const std::size_t before = memory_.live_bytes();
  {
    Tensor y = tape.input(x);
    for (int i = 0; i < 5; ++i) y = tape.apply(Activate{Activation::tanh}, y);
    const Tensor loss = total(tape, y, weights);
    EXPECT_EQ(memory_.live_bytes() - before, 5 * 4000u + 4);
    y = {};
    tape.backward(loss);
  }
  EXPECT_EQ(memory_.live_bytes() - before, 4000u) << "the input's gradient is left";
}

TEST_F(TapeTest, LossMustBeADifferentiatedScalar) {
  Tape tape(context_);
  const Tensor x = tape.input(filled({2}, 1));
  EXPECT_THROW(tape.backward(filled({1}, 1)), Error);
  EXPECT_THROW(tape.backward(x), Error);
}

TEST_F(TapeTest, CheckingModeNamesTheFirstOpThatIsNotFinite) {
  context_.check_finite(true);
  Tape tape(context_);
  const Tensor x = tape.input(values({2}, {1, 3e38f}));
  EXPECT_NO_THROW(tape.apply(Activate{Activation::relu}, x));
  Context::Scope outer(context_, "student"), inner(context_, "layer.3");
  try {
    tape.apply(Sum{}, x, x);
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "the first op with a value that is not finite is sum in student/layer.3");
  }
}

class Recorder : public LaunchObserver {
 public:
  void launched(const Launch& l) override {
    seen.push_back(std::string(l.kernel) + " of " + l.op + " in " + l.scope);
    EXPECT_GE(l.seconds(), 0.0);
    EXPECT_GT(l.cost.bytes, 0.0);
  }
  std::vector<std::string> seen;
};

TEST_F(TapeTest, ObserverSeesLaunchesWithOpAndScope) {
  Context::Scope outer(context_, "model");
  Tape tape(context_);
  const Tensor x = tape.input(filled({2}, 1)), weights = filled({2}, 1);
  Recorder recorder;
  context_.observe(&recorder);
  Tensor y;
  {
    Context::Scope scope(context_, "layer");
    y = tape.apply(Activate{Activation::tanh}, x);
  }
  tape.backward(total(tape, y, weights));
  context_.observe(nullptr);
  EXPECT_EQ(recorder.seen,
            (std::vector<std::string>{"activation of activation in model/layer", "fill of total in model",
                                      "fill of backward in model/backward", "copy of total in model/backward",
                                      "activation_backward of activation in model/backward/layer"}));
}

/// A small step with shared gradients, views and parameters.
std::vector<float> step(Context& context, ParameterSet& parameters, const Tensor& x, const Tensor& weights) {
  for (Parameter& p : parameters.all()) p.has_grad = false;
  Tape tape(context);
  const auto parameter = [&](const char* name) { return tape.parameter(*parameters.find(name)); };
  Tensor h = tape.input(x);
  const Tensor leaf = h;
  for (int layer = 0; layer < 2; ++layer) {
    const Tensor a = tape.apply(Linear{}, h, parameter("w"), parameter("b"));
    const Tensor v = tape.apply(Activate{Activation::gelu}, a);
    h = tape.apply(LayerNorm{1e-5f}, v, h, parameter("b"), parameter("b"), Tensor{});
  }
  const Tensor first = tape.apply(Contiguous{}, tape.narrow(h, 1, 0, 2));
  tape.backward(tape.apply(test::WeightedTotal{weights}, tape.view(first, {weights.dim(0)})));
  if (context.meta()) return {};
  std::vector<float> result(tape.grad(leaf).data<float>(), tape.grad(leaf).data<float>() + x.numel());
  for (const Parameter& p : parameters.all())
    result.insert(result.end(), p.grad.data<float>(), p.grad.data<float>() + p.grad.numel());
  return result;
}

TEST_F(TapeTest, PlannedStepGivesTheBitsOfTheUnplannedOne) {
  for (int threads : {1, 2}) {
    ParameterSet parameters;
    parameters.declare("w", {8, 8});
    parameters.declare("b", {8});
    parameters.allocate(memory_, MemClass::weights);
    parameters.set_gradients(memory_, Gradients::kept);
    RandomStream random(1, 1);
    for (Parameter& p : parameters.all())
      for (std::int64_t i = 0; i < p.value.numel(); ++i) p.value.data<float>()[i] = random.normal();
    const Tensor x = filled({3, 5, 8}, 0), weights = filled({48}, 0);
    for (const Tensor& t : {x, weights})
      for (std::int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = random.normal();

    Context unplanned(Exec{Device::cpu, threads}, memory_);
    const std::vector<float> want = step(unplanned, parameters, x, weights);
    for (float v : want) ASSERT_TRUE(std::isfinite(v));

    RecordingAllocator recording;
    Context meta(Exec{Device::cpu, threads}, recording, true);
    step(meta, parameters, x, weights);
    const MemoryPlan plan = plan_memory(recording.events());
    const auto arena = memory_.allocate(plan.bytes, MemClass::activations, "arena");
    for (int run = 0; run < 2; ++run) {
      PlannedAllocator planned(plan, arena->data);
      {
        Context context(Exec{Device::cpu, threads}, planned);
        EXPECT_EQ(step(context, parameters, x, weights), want);
      }
      planned.finish();
      EXPECT_EQ(planned.measured_peak(), plan.bytes);
    }
  }
}

}  // namespace
}  // namespace cald
