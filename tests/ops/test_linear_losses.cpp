// Losses of linear maps whose logits exist by parts: the same values and gradients as of all logits, parts that end
// early or hold no counted row, bf16, memory.
#include <gtest/gtest.h>

#include "engine/planner.h"
#include "ops/linear.h"
#include "ops/linear_losses.h"
#include "ops/losses.h"
#include "tests/ops/harness.h"
#include "tests/ops/reference.h"

namespace cald::test {
namespace {

struct Head {
  std::int64_t rows, width, classes, rows_at_once;
  bool bias = true, bf16 = false;

  Case make_case(const std::string& name) const {
    Case c{name + " " + Shape{rows, width, classes}.str() + " by " + std::to_string(rows_at_once),
           {{{rows, width}}, {{classes, width}}}};
    if (bias) c.inputs.push_back({{classes}, true, false});
    // The logits' gradient is rounded for the products, and so is the gradient of W, which is W's dtype here, by parts.
    const int parts = static_cast<int>((rows + rows_at_once - 1) / rows_at_once);
    return bf16 ? in_bf16(c, {0, 1}, DType::f32, 1 + parts) : c;
  }
  Tensor bias_of(const std::vector<Tensor>& in) const { return bias ? in[2] : Tensor{}; }
};

void check_linear_cross_entropy(const Head& head, const std::vector<std::int32_t>& labels) {
  check_op(
      head.make_case("linear cross entropy"),
      [&]<class T>(const Inputs<T>& in) {
        const Array<T> logits = linear(in);
        T sum(0.0);
        double count = 0;
        for (std::int64_t i = 0; i < head.rows; ++i) {
          const std::int32_t label = labels[static_cast<std::size_t>(i)];
          if (label < 0) continue;
          sum += -log_softmax(logits, i, T(1.0))[static_cast<std::size_t>(label)];
          ++count;
        }
        return scalar(count > 0 ? sum / T(count) : T(0.0));
      },
      [&](OpRun& run, const std::vector<Tensor>& in) {
        const LinearCrossEntropy op{run.ints({head.rows}, labels), head.rows_at_once};
        return run.tape.apply(op, in[0], in[1], head.bias_of(in));
      });
}

TEST(LinearCrossEntropy, ValuesAndGradients) {
  const std::vector<std::int32_t> labels{6, 0, 3, 3, 1};
  for (const bool bias : {true, false}) {
    check_linear_cross_entropy({5, 3, 7, 2, bias}, labels);
    check_linear_cross_entropy({5, 4, 7, 5, bias}, labels);
    check_linear_cross_entropy({5, 9, 37, 1, bias}, labels);
    check_linear_cross_entropy({1, 1, 2, 256, bias}, {1});
    check_linear_cross_entropy({0, 3, 4, 2, bias}, {});
  }
}

TEST(LinearCrossEntropy, TheMeanIsOverTheCountedRowsOfAllParts) {
  check_linear_cross_entropy({5, 3, 4, 2}, {-100, -1, 2, -1, 0});  // none in the first part, one in each other
  check_linear_cross_entropy({4, 3, 4, 2}, {1, 2, -1, -1});
  check_linear_cross_entropy({4, 3, 4, 2}, {-1, -1, -1, -1});
}

void check_linear_kl(const Head& head, std::int64_t teacher_width, float temperature, float scale) {
  const std::int64_t rows = head.rows, classes = head.classes;
  const std::vector<float> x = normal_values(rows * teacher_width, 8, 1),
                           w = normal_values(classes * teacher_width, 8, 2), b = normal_values(classes, 8, 3);
  check_op(
      head.make_case("linear kl"),
      [&]<class T>(const Inputs<T>& in) {
        const auto constant = [](const Shape& shape, const std::vector<float>& values) {
          Array<T> a(shape);
          for (std::size_t i = 0; i < values.size(); ++i) a.data[i] = T(double(values[i]));
          return a;
        };
        const Array<T> wanted = linear(Inputs<T>{constant({rows, teacher_width}, x),
                                                 constant({classes, teacher_width}, w), constant({classes}, b)});
        const Array<T> logits = linear(in);
        const T factor = T(1.0) / T(double(temperature));
        T sum(0.0);
        for (std::int64_t i = 0; i < rows; ++i) {
          const std::vector<T> p = log_softmax(wanted, i, factor), q = log_softmax(logits, i, factor);
          for (std::size_t j = 0; j < p.size(); ++j) sum += exp(p[j]) * (p[j] - q[j]);
        }
        return scalar(rows > 0 ? sum * T(double(scale)) / T(double(rows)) : T(0.0));
      },
      [&](OpRun& run, const std::vector<Tensor>& in) {
        const LinearKl op{run.floats({rows, teacher_width}, x),
                          run.floats({classes, teacher_width}, w),
                          run.floats({classes}, b),
                          temperature,
                          scale,
                          head.rows_at_once};
        return run.tape.apply(op, in[0], in[1], head.bias_of(in));
      });
}

TEST(LinearKl, ValuesAndGradients) {
  for (const bool bias : {true, false}) {
    check_linear_kl({5, 3, 7, 2, bias}, 4, 2.0f, 4.0f);
    check_linear_kl({4, 2, 19, 2, bias}, 2, 0.5f, 1.0f);
    check_linear_kl({1, 1, 1, 256, bias}, 3, 1.0f, 1.0f);
    check_linear_kl({0, 3, 4, 2, bias}, 2, 1.0f, 1.0f);
  }
}

TEST(LinearLosses, Bf16) {
  if (!backend().has_bf16_products) GTEST_SKIP() << "this processor has no bf16 instructions";
  check_linear_cross_entropy({5, 3, 7, 3, true, true}, {6, 0, -1, 3, 1});
  check_linear_cross_entropy({5, 8, 16, 5, true, true}, {6, 0, 15, 3, 1});
  check_linear_kl({5, 3, 7, 3, true, true}, 4, 2.0f, 4.0f);
}

/// In one part they are the composed ops to the last bit, on a size of several blocks.
TEST(LinearLosses, OnePartGivesTheBitsOfTheComposedOps) {
  const std::int64_t rows = 200, width = 33, classes = 300;
  std::vector<std::int32_t> labels;
  for (std::int32_t i = 0; i < rows; ++i) labels.push_back(i % 7 == 0 ? -1 : i);
  for (const bool kl : {false, true}) {
    const auto run_with = [&](const auto& loss_of) {
      Place place;
      Context& context = place;
      Tape tape(context);
      OpRun run{tape};
      const Tensor x = tape.input(run.floats({rows, width}, normal_values(rows * width, 1, 0)));
      const Tensor w = tape.input(run.floats({classes, width}, normal_values(classes * width, 1, 1)));
      const Tensor b = tape.input(run.floats({classes}, normal_values(classes, 1, 2)));
      const Tensor teacher = run.floats({rows, width}, normal_values(rows * width, 1, 3));
      const Tensor loss = loss_of(run, x, w, b, teacher);
      const float value = read_one(loss);
      tape.backward(loss);
      return std::vector{std::vector{value}, read(tape.grad(x)), read(tape.grad(w)), read(tape.grad(b))};
    };
    const auto fused = run_with([&](OpRun& run, const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& t) {
      return kl ? run.tape.apply(LinearKl{t, w.detach(), b.detach(), 2.0f, 4.0f, rows}, x, w, b)
                : run.tape.apply(LinearCrossEntropy{run.ints({rows}, labels), rows}, x, w, b);
    });
    const auto composed = run_with([&](OpRun& run, const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& t) {
      const Tensor logits = run.tape.apply(Linear{}, x, w, b);
      if (!kl) return run.tape.apply(CrossEntropy{run.ints({rows}, labels)}, logits);
      const Tensor wanted = run.tape.apply(Linear{}, t, w.detach(), b.detach()).detach();
      return run.tape.apply(KlDivergence{wanted, 2.0f, 4.0f}, logits);
    });
    EXPECT_EQ(fused, composed) << (kl ? "kl" : "cross entropy");
  }
}

/// A step's plan has no room for the logits, which the composed ops keep.
TEST(LinearLosses, TheLogitsAreNeverInMemory) {
  const std::int64_t rows = 2048, width = 16, classes = 4096;
  const auto planned = [&](const auto& loss_of) {
    RecordingAllocator recording;
    Context meta(Exec{}, recording, true);
    meta.set_op("input");
    {
      Tape tape(meta);
      const Tensor x = tape.input(meta.empty({rows, width})), w = tape.input(meta.empty({classes, width}));
      const Tensor labels = meta.empty({rows}, DType::i32);
      tape.backward(loss_of(tape, x, w, labels));
    }
    return plan_memory(recording.events()).lower_bound;
  };
  const auto logits = static_cast<std::size_t>(rows * classes) * sizeof(float);
  EXPECT_GE(planned([](Tape& tape, const Tensor& x, const Tensor& w, const Tensor& labels) {
              return tape.apply(CrossEntropy{labels}, tape.apply(Linear{}, x, w, Tensor{}));
            }),
            2 * logits);
  const auto of_parts = [](Tape& tape, const Tensor& x, const Tensor& w, const Tensor& labels) {
    return tape.apply(LinearCrossEntropy{labels}, x, w, Tensor{});
  };
  EXPECT_LT(planned(of_parts), logits / 4);
  EXPECT_LT(planned([](Tape& tape, const Tensor& x, const Tensor& w, const Tensor&) {
              return tape.apply(LinearKl{x.detach(), w.detach(), {}, 1.0f, 1.0f}, x, w, Tensor{});
            }),
            logits / 2);
}

TEST(LinearLosses, ShapesThatDoNotFitAreNamed) {
  Place place;
  Context& context = place;
  Tape tape(context, false);
  const Tensor x = context.empty({3, 2}), w = context.empty({4, 2}), labels = context.empty({3}, DType::i32);
  EXPECT_THROW(tape.apply(LinearCrossEntropy{labels}, x, context.empty({4, 3}), Tensor{}), Error);
  EXPECT_THROW(tape.apply(LinearCrossEntropy{labels}, x, w, context.empty({3})), Error);
  EXPECT_THROW(tape.apply(LinearCrossEntropy{context.empty({2}, DType::i32)}, x, w, Tensor{}), Error);
  EXPECT_THROW(tape.apply(LinearCrossEntropy{labels, 0}, x, w, Tensor{}), Error);
  EXPECT_THROW(tape.apply(LinearKl{context.empty({2, 2}), w, {}, 1, 1}, x, w, Tensor{}), Error);
  EXPECT_THROW(tape.apply(LinearKl{x, context.empty({5, 2}), {}, 1, 1}, x, w, Tensor{}), Error);
}

}  // namespace
}  // namespace cald::test
