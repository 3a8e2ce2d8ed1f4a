// Layers that are computed again in the backward.
#include <map>
#include <string>

#include "ops/elementwise.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"
#include "tests/engine/tape_test.h"

namespace cald {
namespace {

/// A layer with a residual connection, dropout by key and parameters.
Tensor layer(Tape& tape, ParameterSet& p, const Tensor& x, const Tensor& samples) {
  const Tensor a = tape.apply(Linear{}, x, tape.parameter(*p.find("w")), tape.parameter(*p.find("b")));
  const Tensor v = tape.apply(Activate{Activation::gelu}, a);
  const LayerNorm norm{1e-5f, Dropout{0.2f, {5, 1, 2}}};
  return tape.apply(norm, v, x, tape.parameter(*p.find("g")), tape.parameter(*p.find("b")), samples);
}

class RecomputeTest : public TapeTest {
 protected:
  RecomputeTest() {
    parameters_.declare("w", {8, 8});
    parameters_.declare("b", {8});
    parameters_.declare("g", {8});
    parameters_.allocate(memory_, MemClass::weights);
    RandomStream random(1, 1);
    for (Parameter& p : parameters_.all())
      for (std::int64_t i = 0; i < p.value.numel(); ++i) p.value.data<float>()[i] = random.normal();
    for (std::int64_t i = 0; i < 120; ++i) x_.data<float>()[i] = random.normal();
    context_.launch(Fill{samples_, 3.0f});
  }

  /// Three layers that share their parameters, of which the first `recompute` are computed twice. Gradients of x and of
  /// the parameters; `order` receives the parameters' names as they become complete.
  std::vector<float> gradients(int recompute, Gradients where, std::vector<std::string>* order, std::size_t* peak) {
    parameters_.set_gradients(memory_, where);
    std::vector<float> result;
    Tape tape(context_);
    Tensor h = tape.input(x_);
    const Tensor leaf = h;
    for (int i = 0; i < 3; ++i) {
      const auto body = [this](Tape& t, const Tensor& y) { return layer(t, parameters_, y, samples_); };
      h = i < recompute ? tape.recompute(body, h) : body(tape, h);
    }
    *peak = memory_.live_bytes();
    std::map<std::string, std::vector<float>> complete;
    tape.on_complete([&](Parameter& p) {
      order->push_back(p.name);
      complete[p.name] = read(p.grad);
      if (where == Gradients::transient) p.grad = {};
    });
    tape.backward(tape.apply(test::WeightedTotal{x_}, h));
    result = read(tape.grad(leaf));
    for (const auto& [name, g] : complete) result.insert(result.end(), g.begin(), g.end());
    for (const Parameter& p : parameters_.all()) EXPECT_EQ(static_cast<bool>(p.grad), where == Gradients::kept);
    return result;
  }

  ParameterSet parameters_;
  Tensor x_ = filled({3, 5, 8}, 0), samples_ = context_.empty({3}, DType::i32);
};

TEST_F(RecomputeTest, GivesTheSameBitsWithLessMemory) {
  std::vector<std::string> order;
  std::size_t all = 0, less = 0, least = 0;
  const std::vector<float> want = gradients(0, Gradients::kept, &order, &all);
  EXPECT_EQ(gradients(2, Gradients::kept, &order, &less), want);
  EXPECT_EQ(gradients(3, Gradients::transient, &order, &least), want);
  EXPECT_LT(less, all);
  EXPECT_LT(least, less);
}

TEST_F(RecomputeTest, EachParameterIsCompleteOnceAfterItsLastUse) {
  for (int recompute : {0, 1, 3}) {
    std::vector<std::string> order;
    std::size_t peak = 0;
    gradients(recompute, Gradients::transient, &order, &peak);
    std::sort(order.begin(), order.end());
    EXPECT_EQ(order, (std::vector<std::string>{"b", "g", "w"})) << recompute;
  }
}

TEST_F(RecomputeTest, OfConstantsRecordsNothing) {
  parameters_.set_gradients(memory_, Gradients::none);
  Tape tape(context_);
  const Tensor y = tape.recompute([this](Tape& t, const Tensor& x) { return layer(t, parameters_, x, samples_); }, x_);
  EXPECT_EQ(y.variable(), -1);
}

}  // namespace
}  // namespace cald
