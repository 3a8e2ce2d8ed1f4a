// Linear maps into losses over many classes, without all logits in memory: logits come into being for a part of the
// rows at a time, and the backward computes them again. That is a fourth product beside three, and spares the logits
// and their gradient, both (rows, classes).
#pragma once
#include <algorithm>

#include "engine/autograd.h"
#include "engine/base/check.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/losses.h"

namespace cald {

/// x W^T + b by parts of the rows. x: (N, in), W: (classes, in), both f32 or both bf16; b: (classes), f32, or absent.
struct LogitParts {
  const Tensor &x, &w, &b;
  std::int64_t at_once;  ///< rows; fewer read W more often: at 256 the product outweighs that

  void check(const char* name) const {
    check_that(x.rank() == 2, name, "x", "a matrix (N, in)");
    check_that(w.rank() == 2 && w.dim(1) == x.dim(1), name, "w",
               "(classes, " + std::to_string(x.dim(1)) + "), got " + w.shape().str());
    if (b) check_shape(name, "b", b.shape(), {w.dim(0)});
    check_that(at_once > 0, name, "rows_at_once", "above 0, got " + std::to_string(at_once));
  }

  /// Calls fn(begin, end) for each part in order; once without any rows, since results must be set all the same.
  template <class Fn>
  void each(const Fn& fn) const {
    std::int64_t begin = 0;
    do {
      const std::int64_t end = std::min(x.dim(0), begin + at_once);
      fn(begin, end);
      begin = end;
    } while (begin < x.dim(0));
  }

  /// Rows [begin, end) in f32. Run: Forward or Grads.
  template <class Run>
  Tensor logits(Run& run, std::int64_t begin, std::int64_t end) const {
    Tensor y = run.empty({end - begin, w.dim(0)});
    run.launch(Gemm{.a = x.narrow(0, begin, end), .b = w, .bias = b, .c = {y, false}, .transpose_b = true});
    return y;
  }
};

/// The gradients of x, W and b (inputs 0 to 2), from those of the logits part by part.
class LogitGradients {
 public:
  LogitGradients(Grads& g, const LogitParts& parts) : g_(g), parts_(parts), dw_(g[1]), db_(g[2]), dx_(g[0]) {}

  void add(const Tensor& dlogits, std::int64_t begin, std::int64_t end) {
    Tensor d = dlogits;
    if (parts_.w.dtype() == DType::bf16) {
      d = g_.empty(dlogits.shape(), DType::bf16);
      g_.launch(Copy{dlogits, d});
    }
    const Tensor x = parts_.x.narrow(0, begin, end);
    if (dw_) g_.launch(Gemm{.a = d, .b = x, .bias = {}, .c = {dw_.to, dw_.add || begin > 0}, .transpose_a = true});
    if (db_) g_.launch(ColumnSum{dlogits, {db_.to, db_.add || begin > 0}});
    if (dx_) g_.launch(Gemm{.a = d, .b = parts_.w, .bias = {}, .c = {rows(dx_.to, begin, end), dx_.add}});
  }

 private:
  static TensorRef rows(TensorRef t, std::int64_t begin, std::int64_t end) {
    t.shape[0] = end - begin;
    const std::int64_t elements = begin * t.strides[0];
    if (t.data) t.data = t.as<std::byte>() + elements * static_cast<std::int64_t>(size_of(t.dtype));
    return t;
  }

  Grads& g_;
  const LogitParts& parts_;
  GradRef dw_, db_, dx_;
};

/// CrossEntropy{labels} of Linear: x (N, in), W (classes, in), b (classes) or absent; labels (N) i32, negative ones are
/// left out.
struct LinearCrossEntropy {
  static constexpr const char* name = "linear_cross_entropy";
  Tensor labels;
  std::int64_t rows_at_once = 256;

  Tensor forward(Forward& f, const Tensor& x, const Tensor& w, const Tensor& b) const {
    const LogitParts parts{x, w, b, rows_at_once};
    parts.check(name);
    CHECK_SHAPE(labels, {x.dim(0)});
    Tensor loss = f.empty({1});
    parts.each([&](std::int64_t begin, std::int64_t end) {
      const Tensor logits = parts.logits(f, begin, end);
      f.launch(CrossEntropyForward{logits, labels.narrow(0, begin, end), loss, labels, begin > 0});
    });
    f.save(x, w, b);
    return loss;
  }
  void backward(const Saved& s, const Tensor& dloss, Grads& g) const {
    const LogitParts parts{s[0], s[1], s[2], rows_at_once};
    LogitGradients gradients(g, parts);
    parts.each([&](std::int64_t begin, std::int64_t end) {
      const Tensor logits = parts.logits(g, begin, end);
      g.launch(CrossEntropyBackward{logits, labels.narrow(0, begin, end), dloss, {logits, false}, labels});
      gradients.add(logits, begin, end);
    });
  }
};

/// KlDivergence of two Linears: the student's x, W, b, and the teacher's, which are constants; the teacher's width may
/// be another. Neither has all its logits in memory.
struct LinearKl {
  static constexpr const char* name = "linear_kl";
  Tensor teacher_x, teacher_w, teacher_b;
  float temperature, scale;
  std::int64_t rows_at_once = 256;

  Tensor forward(Forward& f, const Tensor& x, const Tensor& w, const Tensor& b) const {
    const LogitParts parts{x, w, b, rows_at_once}, teacher = of_teacher();
    parts.check(name);
    teacher.check("linear_kl of the teacher");
    check_shape(name, "teacher_x", {teacher_x.dim(0)}, {x.dim(0)});
    check_shape(name, "teacher_w", {teacher_w.dim(0)}, {w.dim(0)});
    Tensor loss = f.empty({1});
    parts.each([&](std::int64_t begin, std::int64_t end) {
      const Tensor logits = parts.logits(f, begin, end), wanted = teacher.logits(f, begin, end);
      f.launch(KlForward{logits, wanted, loss, temperature, scale, x.dim(0), begin > 0});
    });
    f.save(x, w, b);
    return loss;
  }
  void backward(const Saved& s, const Tensor& dloss, Grads& g) const {
    const LogitParts parts{s[0], s[1], s[2], rows_at_once}, teacher = of_teacher();
    LogitGradients gradients(g, parts);
    parts.each([&](std::int64_t begin, std::int64_t end) {
      const Tensor logits = parts.logits(g, begin, end);
      {
        const Tensor wanted = teacher.logits(g, begin, end);
        g.launch(KlBackward{logits, wanted, dloss, {logits, false}, temperature, scale, s[0].dim(0)});
      }
      gradients.add(logits, begin, end);
    });
  }

 private:
  LogitParts of_teacher() const { return {teacher_x, teacher_w, teacher_b, rows_at_once}; }
};

}  // namespace cald
