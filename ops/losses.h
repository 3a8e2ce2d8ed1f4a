// The terms of CALD's loss. Each is one f32 element.
#pragma once
#include "engine/autograd.h"
#include "engine/base/check.h"
#include "kernels/elementwise.h"
#include "kernels/losses.h"

namespace cald {

/// Mean cross-entropy of logits (N, C) against labels (N) i32; negative labels are left out.
struct CrossEntropy {
  static constexpr const char* name = "cross_entropy";
  Tensor labels;

  Tensor forward(Forward& f, const Tensor& logits) const {
    check_shape(name, "labels", labels.shape(), {logits.rows()});
    Tensor loss = f.empty({1});
    f.launch(CrossEntropyForward{logits, labels, loss});  // eq:L_CE
    f.save(logits);
    return loss;
  }
  void backward(const Saved& s, const Tensor& dloss, Grads& g) const {
    if (const GradRef dlogits = g[0]) g.launch(CrossEntropyBackward{s[0], labels, dloss, dlogits});
  }
};

/// scale * mean over rows of KL(softmax(teacher/T) || softmax(student/T)).
struct KlDivergence {
  static constexpr const char* name = "kl";
  Tensor teacher;
  float temperature, scale;

  Tensor forward(Forward& f, const Tensor& student) const {
    check_shape(name, "teacher", teacher.shape(), student.shape());
    Tensor loss = f.empty({1});
    f.launch(KlForward{student, teacher, loss, temperature, scale});  // eq:L_KD
    f.save(student);
    return loss;
  }
  void backward(const Saved& s, const Tensor& dloss, Grads& g) const {
    if (const GradRef dstudent = g[0]) g.launch(KlBackward{s[0], teacher, dloss, dstudent, temperature, scale});
  }
};

/// Mean squared error of hidden states over the counted rows, with LayerNorm on both sides if `normalise`.
struct SquaredError {
  static constexpr const char* name = "squared_error";
  Tensor teacher, mask;
  bool normalise = false;

  Tensor forward(Forward& f, const Tensor& student) const {
    check_shape(name, "teacher", teacher.shape(), student.shape());
    Tensor loss = f.empty({1});
    f.launch(SquaredErrorForward{student, teacher, mask, loss, normalise});  // eq:L_LD
    f.save(student);
    return loss;
  }
  void backward(const Saved& s, const Tensor& dloss, Grads& g) const {
    if (const GradRef dstudent = g[0]) g.launch(SquaredErrorBackward{s[0], teacher, mask, dloss, dstudent, normalise});
  }
};

/// weight_a * a + weight_b * b of two scalars; b may be absent.
struct WeightedSum {
  static constexpr const char* name = "weighted_sum";
  float weight_a, weight_b;

  Tensor forward(Forward& f, const Tensor& a, const Tensor& b) const {
    Tensor y = f.empty({1});
    f.launch(Add{a, b ? b : a, y, weight_a, b ? weight_b : 0.0f});
    return y;
  }
  void backward(const Saved&, const Tensor& dy, Grads& g) const {
    if (const GradRef da = g[0]) g.launch(Add{dy, da.to, da.to, weight_a, da.add ? 1.0f : 0.0f});
    if (const GradRef db = g[1]) g.launch(Add{dy, db.to, db.to, weight_b, db.add ? 1.0f : 0.0f});
  }
};

}  // namespace cald
