// Matrix products in all layouts, the linear layer, and the sum of columns.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/elementwise.h"
#include "ops/elementwise.h"
#include "ops/linear.h"
#include "ops/losses.h"
#include "tests/ops/harness.h"
#include "tests/ops/reference.h"
#include "tests/ops/weighted_total.h"

namespace cald::test {
namespace {

TEST(Linear, ValuesAndGradients) {
  for (const Shape& x : {Shape{2, 3, 5}, Shape{1, 1}, Shape{17, 9}, Shape{1, 33}, Shape{3, 1, 2}}) {
    for (std::int64_t out : {std::int64_t{1}, std::int64_t{7}, std::int64_t{16}}) {
      const Case c{"linear " + x.str() + " to " + std::to_string(out), {{x}, {{out, x[-1]}}, {{out}, true, false}}};
      check_op(
          c, []<class T>(const Inputs<T>& in) { return linear(in); },
          [](OpRun& run, const std::vector<Tensor>& in) { return run.tape.apply(Linear{}, in[0], in[1], in[2]); });
      const Case without{c.name + " without bias", {c.inputs[0], c.inputs[1]}};
      check_op(
          without, []<class T>(const Inputs<T>& in) { return linear(in); },
          [](OpRun& run, const std::vector<Tensor>& in) { return run.tape.apply(Linear{}, in[0], in[1], Tensor{}); });
    }
  }
}

/// Against a double reference, and so is what it is made of: Activate, then Linear.
TEST(ActivatedLinear, ValuesAndGradients) {
  for (Activation f : {Activation::gelu, Activation::relu, Activation::tanh}) {
    const auto reference = [f]<class T>(const Inputs<T>& in) {
      Inputs<T> activated = in;
      for (T& v : activated[0].data) v = activation(f, v);
      return linear(activated);
    };
    for (const Shape& h : {Shape{2, 3, 5}, Shape{1, 1}, Shape{17, 9}, Shape{0, 5}}) {
      const Case c{"activated linear " + h.str(), {{h}, {{6, h[-1]}}, {{6}, true, false}}};
      check_op(c, reference, [f](OpRun& run, const std::vector<Tensor>& in) {
        return run.tape.apply(ActivatedLinear{f}, in[0], in[1], in[2]);
      });
      check_op({c.name + ", composed", c.inputs}, reference, [f](OpRun& run, const std::vector<Tensor>& in) {
        return run.tape.apply(Linear{}, run.tape.apply(Activate{f}, in[0]), in[1], in[2]);
      });
    }
  }
}

/// A Linear whose bias each row has by a factor: x W^T + s b^T.
TEST(WeightedBiasLinear, ValuesAndGradients) {
  const auto reference = []<class T>(const Inputs<T>& in) {
    Array<T> y = linear(Inputs<T>{in[0], in[1]});
    const std::size_t out = in[2].data.size();
    for (std::size_t i = 0; i < y.data.size(); ++i) y.data[i] += in[3].data[i / out] * in[2].data[i % out];
    return y;
  };
  const auto op = [](OpRun& run, const std::vector<Tensor>& in) {
    return run.tape.apply(WeightedBiasLinear{}, in[0], in[1], in[2], in[3]);
  };
  for (const Shape& x : {Shape{2, 3, 5}, Shape{1, 1}, Shape{17, 9}, Shape{0, 5}}) {
    for (std::int64_t out : {std::int64_t{1}, std::int64_t{7}, std::int64_t{48}}) {
      Shape s = x;
      s[-1] = 1;
      const Case c{"weighted bias " + x.str() + " to " + std::to_string(out),
                   {{x}, {{out, x[-1]}}, {{out}, true, false}, {s, true, false}}};
      check_op(c, reference, op);
      if (backend().has_bf16_products) check_op(in_bf16(c, {0, 1}), reference, op);
    }
  }
}

TEST(Linear, Bf16) {
  if (!backend().has_bf16_products) GTEST_SKIP() << "this processor has no bf16 instructions";
  for (const Shape& x : {Shape{2, 3, 5}, Shape{1, 1}, Shape{17, 9}, Shape{64, 33}, Shape{0, 4}}) {
    for (std::int64_t out : {std::int64_t{1}, std::int64_t{7}, std::int64_t{48}}) {
      const Case c{"linear " + x.str() + " to " + std::to_string(out), {{x}, {{out, x[-1]}}, {{out}, true, false}}};
      check_op(
          in_bf16(c, {0, 1}), []<class T>(const Inputs<T>& in) { return linear(in); },
          [](OpRun& run, const std::vector<Tensor>& in) { return run.tape.apply(Linear{}, in[0], in[1], in[2]); });
    }
  }
}

/// As a model in bf16 has it: x and W are f32, rounded for the product alone, and their gradients stay f32, summed over
/// both uses of x without being rounded.
TEST(Linear, OfCastOperandsGivesGradientsInF32) {
  if (!backend().has_bf16_products) GTEST_SKIP() << "this processor has no bf16 instructions";
  Place place;
  Context& context = place;
  const auto tensor = [&](const Shape& shape, std::uint64_t stream) {
    return tensor_of(context, shape, rounded(normal_values(shape.numel(), 3, stream), DType::bf16));
  };
  Tape tape(context);
  const Tensor x = tape.input(tensor({5, 8}, 0)), w = tape.input(tensor({6, 8}, 1)), r = tensor({5, 6}, 2);
  const Tensor half = tape.cast(x, DType::bf16);
  EXPECT_EQ(half.variable(), x.variable());
  const Tensor y1 = tape.apply(Linear{}, half, tape.cast(w, DType::bf16), Tensor{});
  const Tensor y2 = tape.apply(Linear{}, half, tape.cast(w, DType::bf16), Tensor{});
  EXPECT_EQ(y1.dtype(), DType::bf16);
  const Tensor total =
      tape.apply(WeightedSum{1, 1}, tape.apply(WeightedTotal{r}, y1), tape.apply(WeightedTotal{r}, y2));
  tape.backward(total);
  ASSERT_EQ(tape.grad(x).dtype(), DType::f32);
  const std::vector<float> dx = read(tape.grad(x)), rs = read(r), ws = read(w);
  for (std::size_t i = 0; i < 5; ++i)
    for (std::size_t k = 0; k < 8; ++k) {
      double want = 0, size = 0;
      for (std::size_t j = 0; j < 6; ++j) {
        const double term = 2.0 * rs[i * 6 + j] * ws[j * 8 + k];
        want += term, size += std::abs(term);
      }
      EXPECT_NEAR(dx[i * 8 + k], want, 8 * 6e-8 * size);  // a sum of few terms in f32
    }
}

/// TF32 keeps 10 bits of an operand: an error of a product's term is 2^-10 at most for each of the two that are cut.
TEST(Linear, Tf32WhereItIsAllowed) {
  if (backend().device != Device::cuda) GTEST_SKIP() << "this backend has no TF32";
  const Shape xs{256, 256}, ws{128, 256};
  const std::vector<float> x = normal_values(xs.numel(), 3, 0), w = normal_values(ws.numel(), 3, 1);
  Place place;
  HeapAllocator memory(backend().device);
  const auto product = [&](bool tf32) {
    Exec exec = place.context().exec();
    exec.tf32 = tf32;
    Context context(exec, memory);
    Tape tape(context, false);
    return read(tape.apply(Linear{}, tensor_of(context, xs, x), tensor_of(context, ws, w), Tensor{}));
  };
  const std::vector<float> cut = product(true), whole = product(false);
  double farthest = 0;
  for (std::int64_t i = 0; i < xs[0]; ++i)
    for (std::int64_t j = 0; j < ws[0]; ++j) {
      double want = 0, size = 0;
      for (std::int64_t k = 0; k < xs[1]; ++k) {
        const double term = static_cast<double>(x[static_cast<std::size_t>(i * xs[1] + k)]) *
                            static_cast<double>(w[static_cast<std::size_t>(j * ws[1] + k)]);
        want += term, size += std::abs(term);
      }
      const auto at = static_cast<std::size_t>(i * ws[0] + j);
      EXPECT_NEAR(cut[at], want, 2.01 / 1024 * size);
      EXPECT_NEAR(whole[at], want, 256 * 6e-8 * size);
      farthest = std::max(farthest, std::abs(cut[at] - want) / size);
    }
  EXPECT_GT(farthest, 1e-5) << "TF32 was not used";
}

/// A bias may be a slice, at any address of a float.
TEST(Linear, ABiasAtAnyAddress) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    if (dtype == DType::bf16 && !backend().has_bf16_products) continue;
    Place place;
    Context& c = place;
    Tape tape(c, false);
    const Tensor x = tape.cast(tensor_of(c, {5, 9}, normal_values(45, 3, 0)), dtype);
    const Tensor w = tape.cast(tensor_of(c, {7, 9}, normal_values(63, 3, 1)), dtype);
    const std::vector<float> all = normal_values(12, 3, 2);
    const Tensor biases = tensor_of(c, {12}, all);
    for (std::int64_t at = 0; at < 5; ++at) {
      const std::vector<float> values(all.begin() + at, all.begin() + at + 7);
      const Tensor sliced = tape.apply(Linear{}, x, w, tape.narrow(biases, 0, at, at + 7));
      const Tensor whole = tape.apply(Linear{}, x, w, tensor_of(c, {7}, values));
      const std::vector<float> got = read(tape.cast(sliced, DType::f32)), want = read(tape.cast(whole, DType::f32));
      // Added behind the product, it finds a sum that was rounded.
      const float epsilon = dtype == DType::bf16 ? 1.0f / 128 : 1.2e-7f;
      for (std::size_t i = 0; i < want.size(); ++i)
        EXPECT_NEAR(got[i], want[i], epsilon * (std::abs(want[i]) + 2 * std::abs(values[i % 7]))) << at;
    }
  }
}

TEST(Linear, NoRowsAndNoColumns) {
  for (const Shape& x : {Shape{0, 5}, Shape{3, 0}, Shape{0, 0}}) {
    check_op(
        {"linear " + x.str(), {{x}, {{4, x[-1]}}, {{4}, true, false}}},
        []<class T>(const Inputs<T>& in) { return linear(in); },
        [](OpRun& run, const std::vector<Tensor>& in) { return run.tape.apply(Linear{}, in[0], in[1], in[2]); });
  }
}

/// The weight packed, from f32 or bf16; absent where the backend does not pack it.
Tensor packed(Context& c, HeapAllocator& memory, const Tensor& w, Packing packing) {
  const Tensor to = weight_copy(w.shape(), packing, memory, MemClass::weights, "packed");
  if (!to || to.packing() == Packing::none) return {};
  c.launch(Copy{w, to});
  return to;
}

/// x W^T and dy W with a weight that is rounded before the product, in it, or once and for all: within the error of a
/// sum in f32, and the last two alike to the bit.
TEST(Linear, WeightsThatAreRoundedAndPacked) {
  if (!backend().has_bf16_products) GTEST_SKIP() << "this processor has no bf16 instructions";
  const std::pair<std::int64_t, std::int64_t> sizes[] = {{64, 64}, {70, 100}, {129, 65}, {200, 64}, {64, 33}, {63, 200},
                                                         {5, 9},   {97, 127}, {1, 64},   {192, 96}, {0, 64},  {66, 0}};
  for (const auto& [out, in] : sizes)
    for (const bool backward : {false, true})
      for (const std::int64_t m : {1, 3, 40}) {
        const Shape xs{m, backward ? out : in}, ys{m, backward ? in : out}, ws{out, in};
        const std::vector<float> x = rounded(normal_values(xs.numel(), 3, 0), DType::bf16);
        const std::vector<float> w = normal_values(ws.numel(), 3, 1), half_w = rounded(w, DType::bf16);
        const std::string what = ws.str() + (backward ? " backward" : " forward") + ", m " + std::to_string(m);
        std::vector<float> first;
        for (const int threads : backend().threads) {
          Place place(threads);
          HeapAllocator memory(backend().device);
          Context& c = place;
          const Tensor half_x = c.empty(xs, DType::bf16), half = c.empty(ws, DType::bf16);
          const Tensor wide = c.empty({out, in + 3}).narrow(1, 1, in + 1);
          c.launch(Copy{tensor_of(c, xs, x), half_x});
          c.launch(Copy{tensor_of(c, ws, w), wide});
          c.launch(Copy{wide, half});
          const Packing packing = backward ? Packing::backward : Packing::forward;
          const Tensor of_f32 = packed(c, memory, wide, packing), of_bf16 = packed(c, memory, half, packing);
          std::vector<std::vector<float>> got;
          for (const Tensor& b : {half, wide, of_f32, of_bf16}) {
            if (!b) continue;
            const Tensor y = c.empty(ys);
            c.launch(Gemm{.a = half_x, .b = b, .bias = {}, .c = {y, false}, .transpose_b = !backward});
            got.push_back(read(y));
          }
          for (std::size_t i = 2; i < got.size(); ++i) EXPECT_EQ(got[i], got[1]) << what;
          if (first.empty()) first = got.back();
          EXPECT_TRUE(got.back() == first || !of_f32) << what << ", " << threads << " threads";
          const std::int64_t k = xs[1];
          for (std::int64_t i = 0; i < m; ++i)
            for (std::int64_t j = 0; j < ys[1]; ++j) {
              double want = 0, size = 0;
              for (std::int64_t l = 0; l < k; ++l) {
                const double term =
                    static_cast<double>(x[static_cast<std::size_t>(i * k + l)]) *
                    static_cast<double>(half_w[static_cast<std::size_t>(backward ? l * in + j : j * in + l)]);
                want += term, size += std::abs(term);
              }
              for (const std::vector<float>& y : {got[0], got[1]})
                EXPECT_NEAR(y[static_cast<std::size_t>(i * ys[1] + j)], want, static_cast<double>(k) * 6e-8 * size)
                    << what;
            }
        }
      }
}

TEST(Gemm, RefusesAWeightThatIsPackedForAnotherProduct) {
  if (!packed_bytes(backend().device, {64, 64}, Packing::forward)) GTEST_SKIP() << "this backend packs no weights";
  Place place;
  HeapAllocator memory(backend().device);
  Context& c = place;
  const Tensor w = c.empty({64, 64}), x = c.empty({2, 64}, DType::bf16), y = c.empty({2, 64});
  c.launch(Fill{w, 1.0f});
  c.launch(Fill{x, 1.0f});
  for (const Packing packing : {Packing::forward, Packing::backward}) {
    const Tensor p = packed(c, memory, w, packing);
    EXPECT_THROW(c.launch(Gemm{x, p, {}, {y, false}, false, packing == Packing::backward}), Error);
    EXPECT_THROW(c.launch(Gemm{p, x, {}, {y, false}, false, true}), Error);
    EXPECT_THROW(c.launch(Copy{p, w}), Error);
    EXPECT_THROW(p.narrow(0, 0, 2), Error);
    EXPECT_THROW(p.view({4096}), Error);
  }
}

/// The general product as an op without gradient, for the settings that Linear does not use.
struct Product {
  static constexpr const char* name = "product";
  bool ta, tb, batched, add;
  float alpha;
  Tensor forward(Forward& f, const Tensor& a, const Tensor& b, const Tensor& bias, const Tensor& c0) const {
    Tensor c = f.like(c0);
    f.launch(Copy{c0, c});
    f.launch(Gemm{a, b, bias, {c, add}, ta, tb, batched, alpha});
    return c;
  }
  void backward(const Saved&, const Tensor&, Grads&) const {}
};

template <class T>
Array<T> product(const Inputs<T>& in, const Product& p, bool bias) {
  Array<T> c = in[2];
  const std::int64_t batches = p.batched ? c.dim(0) : 1, m = c.shape[-2], n = c.shape[-1];
  const std::int64_t k = in[0].shape[p.ta ? -2 : -1];
  for (std::int64_t b = 0; b < batches; ++b)
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        T sum(0);
        for (std::int64_t l = 0; l < k; ++l)
          sum += (p.ta ? in[0].at(b * k + l, i) : in[0].at(b * m + i, l)) *
                 (p.tb ? in[1].at(b * n + j, l) : in[1].at(b * k + l, j));
        T& to = c.at(b * m + i, j);
        to = (p.add ? to : T(0)) + T(static_cast<double>(p.alpha)) * sum + (bias ? in[3].at(0, j) : T(0));
      }
  return c;
}

Shape with_batch(bool batched, std::int64_t rows, std::int64_t cols, bool transposed) {
  if (transposed) std::swap(rows, cols);
  return batched ? Shape{3, rows, cols} : Shape{rows, cols};
}

TEST(Gemm, EveryLayoutAlphaBiasAndAdd) {
  for (int bits = 0; bits < 64; ++bits) {
    const Product p{(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0, bits & 16 ? 0.37f : 1.0f};
    const bool bias = (bits & 32) != 0;
    if (p.batched && bias) continue;
    for (const auto& [m, n, k] :
         {std::array{5, 7, 3}, std::array{1, 4, 9}, std::array{33, 1, 2}, std::array{6, 5, 0}}) {
      Case c{"gemm " + std::to_string(bits) + " m " + std::to_string(m), {}};
      c.inputs = {{with_batch(p.batched, m, k, p.ta), false},
                  {with_batch(p.batched, k, n, p.tb), false},
                  {with_batch(p.batched, m, n, false), false}};
      if (bias) c.inputs.push_back({{n}, false, false});
      check_op(
          c, [&]<class T>(const Inputs<T>& in) { return product(in, p, bias); },
          [&](OpRun& run, const std::vector<Tensor>& in) {
            return run.tape.apply(p, in[0], in[1], bias ? in[3] : Tensor{}, in[2]);
          });
    }
  }
}

TEST(Gemm, WritesOnlyItsPartOfAStridedResult) {
  Place place;
  Context& context = place;
  const Tensor a = context.empty({4, 3}), b = context.empty({3, 5}), whole = context.empty({4, 11});
  context.launch(Fill{a, 2.0f});
  context.launch(Fill{b, 0.5f});
  context.launch(Fill{whole, -1.0f});
  context.launch(Gemm{.a = a, .b = b, .bias = {}, .c = {whole.narrow(1, 3, 8), false}});
  const std::vector<float> got = read(whole);
  for (std::size_t i = 0; i < 4; ++i)
    for (std::size_t j = 0; j < 11; ++j) EXPECT_EQ(got[i * 11 + j], j >= 3 && j < 8 ? 3.0f : -1.0f);
}

TEST(Gemm, NamesShapesThatDoNotFit) {
  Place place;
  Context& context = place;
  const Tensor a = context.empty({4, 3}), b = context.empty({2, 5}), c = context.empty({4, 5});
  try {
    context.launch(Gemm{.a = a, .b = b, .bias = {}, .c = {c, false}});
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("a [4, 3] times b [2, 5] does not give c [4, 5]"), std::string::npos)
        << e.what();
  }
  const Tensor wide = context.empty({3, 3, 4});
  EXPECT_THROW(context.launch(Gemm{.a = wide.narrow(1, 0, 2), .b = b, .bias = {}, .c = {c, false}}), Error);
}

TEST(Gemm, ManyShapesOneAfterAnother) {
  // More shapes than the cache of compiled products holds.
  Place place;
  Context& context = place;
  for (int round = 0; round < 2; ++round)
    for (int n = 1; n <= 300; ++n) {
      const Tensor a = context.empty({2, 3}), b = context.empty({3, n}), c = context.empty({2, n});
      context.launch(Fill{a, 1.0f});
      context.launch(Fill{b, 2.0f});
      context.launch(Gemm{.a = a, .b = b, .bias = {}, .c = {c, false}});
      ASSERT_EQ(read(c).back(), 6.0f) << n;
    }
}

/// y = sum of x's rows, with an exact gradient.
TEST(ColumnSum, MatchesForAnyNumberOfRowsAndThreads) {
  for (std::int64_t rows : {0, 1, 7, 8, 9, 100})
    for (std::int64_t cols : {0, 1, 5, 16, 37}) {
      const std::vector<float> x = normal_values(rows * cols, 3, 0);
      std::vector<double> exact(static_cast<std::size_t>(cols), 0.0);
      std::vector<float> naive(static_cast<std::size_t>(cols), 0.0f);
      for (std::size_t i = 0; i < x.size(); ++i) {
        exact[i % exact.size()] += static_cast<double>(x[i]);
        naive[i % exact.size()] += x[i];
      }
      std::vector<float> reference;
      for (int threads : backend().many_threads) {
        Place place(threads);
        Context& context = place;
        const Tensor from = context.empty({rows, cols + 2}).narrow(1, 1, cols + 1), to = context.empty({cols});
        context.launch(Copy{tensor_of(context, {rows, cols}, x), from});
        context.launch(ColumnSum{from, {to, false}});
        const std::vector<float> got = read(to);
        expect_near(got, wanted(exact, naive), "column sum");
        if (reference.empty()) reference = got;
        EXPECT_EQ(got, reference) << "the number of threads must not matter";
        context.launch(ColumnSum{from, {to, true}});
        const std::vector<float> twice = read(to);
        for (std::size_t j = 0; j < got.size(); ++j)
          EXPECT_NEAR(twice[j], 2 * got[j], 4 * wanted(exact, naive).tolerance);
      }
    }
}

}  // namespace
}  // namespace cald::test
