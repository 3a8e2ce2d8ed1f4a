// A new op from launches that are there: y = a + s gelu(b), with its gradient checked by finite differences.
//
// Prints the largest difference, and ends with exit code 1 if a derivative disagrees.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "engine/autograd.h"
#include "engine/base/check.h"
#include "ops/losses.h"

using namespace cald;

/// y = a + s gelu(b); a and b of one shape.
struct AddGelu {
  static constexpr const char* name = "add_gelu";
  float s;

  Tensor forward(Forward& f, const Tensor& a, const Tensor& b) const {
    check_shape(name, "b", b.shape(), a.shape());
    Tensor y = f.like(a);
    f.launch(ActivationForward{b, y, Activation::gelu});
    f.launch(Add{a, y, y, 1.0f, s});
    f.save(b);
    return y;
  }

  void backward(const Saved& saved, const Tensor& dy, Grads& g) const {
    if (g.wanted(1)) {
      Tensor db = g.empty(dy.shape());
      g.launch(ActivationBackward{saved[0], dy, {db, false}, Activation::gelu});
      g.launch(Add{db, db, db, s, 0.0f});
      g.pass(1, db);  // becomes b's gradient, or is added to it if one is there already
    }
    g.pass(0, dy);  // the derivative is 1: dy itself, without a copy
  }
};

namespace {

constexpr std::int64_t kSize = 12;

struct Problem {
  HeapAllocator memory;
  Context context{Exec{}, memory};
  Tensor a = random("a"), b = random("b"), wanted = random("wanted");

  Tensor random(const char* stream) {
    Tensor t = context.empty({3, 4});
    RandomStream draws(7, stream_of(stream));
    for (std::int64_t i = 0; i < kSize; ++i) t.data<float>()[i] = draws.normal();
    return t;
  }

  /// mean((y - wanted)^2) of y = op(b, op(a, b)): b is used twice, so its gradient is a sum.
  Tensor loss(Tape& tape, const Tensor& va, const Tensor& vb) const {
    const Tensor y = tape.apply(AddGelu{0.7f}, vb, tape.apply(AddGelu{-1.3f}, va, vb));
    return tape.apply(SquaredError{wanted, Tensor{}}, y);
  }
  double value() {
    Tape tape(context, false);
    return *loss(tape, a, b).data<float>();
  }
};

/// (loss(x + h) - loss(x - h)) / 2h against the gradient, for every element of x; the largest difference.
double largest_difference(Problem& p, const Tensor& x, const Tensor& gradient) {
  constexpr float kStep = 1e-2f;
  double largest = 0;
  for (std::int64_t i = 0; i < kSize; ++i) {
    float& element = x.data<float>()[i];
    const float at = element;
    element = at + kStep;
    const double above = p.value();
    element = at - kStep;
    const double below = p.value();
    element = at;
    largest = std::max(largest, std::abs((above - below) / (2.0 * kStep) - gradient.data<float>()[i]));
  }
  return largest;
}

}  // namespace

int main() {
  Problem p;
  Tape tape(p.context);
  const Tensor a = tape.input(p.a), b = tape.input(p.b);
  tape.backward(p.loss(tape, a, b));
  const double da = largest_difference(p, p.a, tape.grad(a)), db = largest_difference(p, p.b, tape.grad(b));
  std::printf("largest difference to finite differences: %.1e in da, %.1e in db\n", da, db);
  return std::max(da, db) < 1e-4 ? 0 : 1;
}
