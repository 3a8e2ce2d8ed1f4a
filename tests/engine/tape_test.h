// The fixture of the tape's tests.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/autograd.h"
#include "kernels/elementwise.h"
#include "ops/losses.h"
#include "tests/ops/weighted_total.h"

namespace cald {

/// Heap memory filled with NaNs: what is read before it is written shows.
class PoisonedHeap : public HeapAllocator {
 public:
  std::shared_ptr<Storage> allocate(std::size_t bytes, MemClass cls, const char* op) override {
    auto s = HeapAllocator::allocate(bytes, cls, op);
    std::memset(s->data, 0xFF, bytes);
    return s;
  }
};

class TapeTest : public testing::Test {
 protected:
  Tensor values(const Shape& s, std::vector<float> v) {
    Tensor t = context_.empty(s);
    std::copy(v.begin(), v.end(), t.data<float>());
    return t;
  }
  Tensor filled(const Shape& s, float v) {
    Tensor t = context_.empty(s);
    context_.launch(Fill{t, v});
    return t;
  }
  static std::vector<float> read(const Tensor& t) { return {t.data<float>(), t.data<float>() + t.numel()}; }
  static Tensor total(Tape& tape, const Tensor& x, const Tensor& weights) {
    return tape.apply(test::WeightedTotal{weights}, x);
  }
  static Tensor plus(Tape& tape, const Tensor& a, const Tensor& b) { return tape.apply(WeightedSum{1, 1}, a, b); }

  PoisonedHeap memory_;
  Context context_{Exec{}, memory_};
};

}  // namespace cald
