// The engine as a library: a perceptron with one hidden layer learns which of two spirals a point lies on.
//
//   x (N, 2) -> Linear -> GELU -> Linear -> logits (N, 2) -> mean cross-entropy, trained by AdamW on all points at
//   once.
//
// Prints the loss, and ends with exit code 1 if fewer than 99 % of the points are told apart at the end.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "kernels/optimizer.h"
#include "kernels/transfer.h"
#include "ops/elementwise.h"
#include "ops/linear.h"
#include "ops/losses.h"

using namespace cald;

namespace {

constexpr std::int64_t kPoints = 300, kHidden = 64;
constexpr int kSteps = 600;

/// Trained weights of y = x W^T + b: they have memory once the set they are declared in is allocated.
struct Layer {
  Layer(ParameterSet& set, const char* name, std::int64_t out, std::int64_t in)
      : weight(set.declare(std::string(name) + ".weight", {out, in})),
        bias(set.declare(std::string(name) + ".bias", {out})) {}
  Tensor operator()(Tape& t, const Tensor& x) const {
    return t.apply(Linear{}, x, t.parameter(weight), t.parameter(bias));
  }
  Parameter &weight, &bias;
};

struct Points {
  std::vector<float> x;            // (N, 2)
  std::vector<std::int32_t> side;  // (N): which spiral
};

/// Two arms of three quarters of a turn, half a turn apart, with a little noise.
Points two_spirals() {
  Points p;
  RandomStream noise(1, stream_of("points"));
  for (std::int64_t i = 0; i < kPoints; ++i) {
    const float r = 0.2f + 0.8f * static_cast<float>(i) / kPoints, angle = 6.0f * r + (i % 2 ? 3.14159265f : 0.0f);
    for (const float c : {std::cos(angle), std::sin(angle)}) p.x.push_back(2 * r * c + 0.03f * noise.normal());
    p.side.push_back(static_cast<std::int32_t>(i % 2));
  }
  return p;
}

}  // namespace

int main() {
  HeapAllocator memory;
  Context context(Exec{.device = Device::cpu, .threads = 1}, memory);

  ParameterSet parameters;
  const Layer hidden(parameters, "hidden", kHidden, 2), out(parameters, "out", 2, kHidden);
  parameters.allocate(memory, MemClass::weights);
  parameters.set_gradients(memory, Gradients::kept);  // they are trained
  std::vector<AdamWSlot> slots;
  std::vector<Tensor> moments;
  for (Parameter& p : parameters.all()) {
    RandomStream random(0, stream_of(p.name));
    for (std::int64_t i = 0; i < p.shape.numel(); ++i)
      p.value.data<float>()[i] = p.shape.rank() == 2 ? random.normal() / std::sqrt(float(p.shape[1])) : 0.0f;
    for (int i = 0; i < 2; ++i) {
      moments.push_back(context.empty(p.shape, DType::f32, MemClass::optimizer));
      std::memset(moments.back().data<void>(), 0, moments.back().bytes());
    }
    slots.push_back({p.value, p.grad, moments.end()[-2], moments.end()[-1], 0.01f, 0.01f});  // rate, decay
  }

  const Points points = two_spirals();
  const Tensor x = context.empty({kPoints, 2}), side = context.empty({kPoints}, DType::i32);
  context.launch(Upload{points.x.data(), x});
  context.launch(Upload{points.side.data(), side});

  for (int step = 1; step <= kSteps; ++step) {
    for (Parameter& p : parameters.all()) p.has_grad = false;  // the backward then sets gradients rather than adding
    Tape tape(context);
    const Tensor logits = out(tape, tape.apply(Activate{Activation::gelu}, hidden(tape, x)));
    const Tensor loss = tape.apply(CrossEntropy{side}, logits);
    tape.backward(loss);
    context.launch(AdamW{&slots, step, 0.9, 0.999, 1e-8f, 0.0f, {}});
    if (step == 1 || step % 100 == 0) std::printf("step %3d: loss %.4f\n", step, double(*loss.data<float>()));
  }

  Tape tape(context, false);  // nothing is recorded: no backward follows
  const Tensor logits = out(tape, tape.apply(Activate{Activation::gelu}, hidden(tape, x)));
  int right = 0;
  for (std::size_t i = 0; i < kPoints; ++i)
    right += (logits.data<float>()[2 * i + 1] > logits.data<float>()[2 * i]) == (points.side[i] == 1);
  std::printf("%d of %lld points are on the right side\n", right, static_cast<long long>(kPoints));
  return right >= 0.99 * kPoints ? 0 : 1;
}
