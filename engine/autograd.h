// Reverse-mode automatic differentiation on a tape.
//
// An op is a struct with its hyperparameters and two functions, forward beside backward:
//
//   struct Scale {                                       // y = s x
//     static constexpr const char* name = "scale";
//     float s;
//     Tensor forward(Forward& f, const Tensor& x) const {
//       Tensor y = f.like(x);
//       f.launch(Add{x, x, y, s, 0});
//       return y;                                        // f.save(...) keeps what the backward needs
//     }
//     void backward(const Saved& saved, const Tensor& dy, Grads& g) const {
//       if (g.wanted(0)) { GradRef dx = g[0]; g.launch(...); }
//     }
//   };
//   Tensor y = tape.apply(Scale{2}, x);
//
// Gradients come into being when they are first written and die when they were used, in an order that depends on shapes
// alone: that is what lets the memory planner know them before the step.
#pragma once
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/context.h"
#include "engine/parameter.h"

namespace cald {

using Saved = std::vector<Tensor>;

/// What an op's forward sees of the engine.
class Forward {
 public:
  Forward(Context& c, bool recording) : context_(c), recording_(recording) {}
  Context& context() { return context_; }
  Tensor empty(const Shape& s, DType t = DType::f32) { return context_.empty(s, t); }
  Tensor like(const Tensor& x) { return context_.like(x); }
  template <class Args>
  void launch(const Args& a) {
    context_.launch(a);
  }
  /// Keeps tensors for the backward, in this order. Without recording nothing is kept.
  template <class... T>
  void save(const T&... tensors) {
    if (recording_) (saved_.push_back(tensors.detach()), ...);
  }
  /// False where no backward will follow: then an op may skip what only the backward needs.
  bool recording() const { return recording_; }
  Saved take_saved() { return std::move(saved_); }

 private:
  Context& context_;
  bool recording_;
  Saved saved_;
};

class Tape;

/// What an op's backward sees: the gradients of its inputs, by the inputs' numbers in forward.
class Grads {
 public:
  Grads(Tape& tape, const std::vector<std::int32_t>& inputs) : tape_(tape), inputs_(inputs) {}
  Context& context();
  Tensor empty(const Shape& s, DType t = DType::f32) { return context().empty(s, t); }
  Tensor like(const Tensor& x) { return context().like(x); }
  template <class Args>
  void launch(const Args& a) {
    context().launch(a);
  }

  /// True if input i is differentiated.
  bool wanted(int i) const { return inputs_[static_cast<std::size_t>(i)] >= 0; }
  /// Where to write the gradient of input i: the caller must set or add as it says. Absent if it is not wanted.
  GradRef operator[](int i);
  /// The same, but dy's own memory if nobody else needs it, for backwards that work in place.
  GradRef reuse(int i, const Tensor& dy);
  /// The gradient of input i, a table of which `count` rows at most get one, by rows: grad (count, D) and rows (V) i32
  /// to be set (see AdamWSlot). Absent where that saves nothing, or where the gradient must be a whole: then see above.
  struct ByRows {
    GradRef grad;
    TensorRef rows;
    explicit operator bool() const { return rows.present; }
  };
  ByRows by_rows(int i, std::int64_t count);
  /// The gradient of input i is `d` itself (or is increased by it): no copy where none is needed.
  void pass(int i, const Tensor& d);

 private:
  friend class Tape;
  Tape& tape_;
  const std::vector<std::int32_t>& inputs_;
};

/// Records ops and runs them backwards. Lives for one forward and at most one backward.
class Tape {
 public:
  /// Without `recording` (evaluation, a frozen teacher) ops run but nothing is kept.
  explicit Tape(Context& context, bool recording = true)
      : context_(context), recording_(recording), scope_(context.scope()) {}
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  Context& context() { return context_; }
  bool recording() const { return recording_; }

  /// A leaf whose gradient the caller wants to read with grad() after the backward.
  Tensor input(const Tensor& x);
  /// The parameter's value as a variable; its gradient goes to Parameter::grad, added if has_grad is set. A parameter
  /// without gradient, kept or transient, is a constant.
  Tensor parameter(Parameter& p);

  /// Runs op.forward and, if an input is differentiated, records op.backward. Inputs may be absent tensors.
  template <class Op, class... T>
  Tensor apply(const Op& op, const T&... inputs) {
    context_.set_op(Op::name);
    const bool record = recording_ && ((inputs.variable() >= 0) || ...);
    Forward f(context_, record);
    Tensor y = op.forward(f, inputs.detach()...);
    if (context_.checks_finite()) check(y);
    if (!record) return y;
    auto node = std::make_unique<OpNode<Op>>(op);
    node->inputs = {inputs.variable()...};
    node->saved = f.take_saved();
    return push(std::move(node), y, y.dtype());
  }

  /// The same elements under another shape; x must be contiguous. The gradient takes the way back without a copy.
  Tensor view(const Tensor& x, const Shape& shape);
  /// The same values rounded to `dtype`; x itself if it has that dtype. It remains x's variable: the gradients of all
  /// uses of both are summed in the dtype of x's gradient, without another rounding.
  Tensor cast(const Tensor& x, DType dtype);
  /// Elements [begin, end) of dimension `dim` as a strided view.
  Tensor narrow(const Tensor& x, int dim, std::int64_t begin, std::int64_t end);

  /// y = body(tape, x), of which nothing is kept but x: the backward runs body again (Chen et al. 2016, "Training Deep
  /// Nets with Sublinear Memory Cost"). body must compute the same again, so it draws dropout by key; what it
  /// differentiates are x and parameters, nothing else.
  using Body = std::function<Tensor(Tape&, const Tensor& x)>;
  Tensor recompute(Body body, const Tensor& x);

  /// In the backward, `fn` sees a parameter as soon as its gradient is complete: every op that used it has added its
  /// part. What is done with it then (an update, say) no longer changes the other gradients.
  void on_complete(std::function<void(Parameter&)> fn) { on_complete_ = std::move(fn); }

  /// Gradients of the scalar `loss` with respect to every leaf. The tape is used up.
  void backward(const Tensor& loss);
  /// The gradient of an input() leaf after backward; absent if the loss does not depend on it.
  Tensor grad(const Tensor& x) const;

 private:
  friend class Grads;
  struct Node {
    virtual ~Node() = default;
    virtual const char* op_name() const = 0;
    virtual void backward(const Tensor& dy, Grads& g) = 0;
    std::vector<std::int32_t> inputs;
    Saved saved;
    std::int32_t output = -1;
    std::string scope;
  };
  template <class Op>
  struct OpNode : Node {
    explicit OpNode(const Op& o) : op(o) {}
    const char* op_name() const override { return Op::name; }
    void backward(const Tensor& dy, Grads& g) override { op.backward(saved, dy, g); }
    Op op;
  };
  struct Variable {
    Shape shape;
    DType dtype;  ///< of its gradient
    Tensor grad;
    Parameter* parameter = nullptr;
    bool leaf = false;
    std::int32_t uses = 0;  ///< as inputs of nodes that have not run backwards yet
  };
  struct RecomputeNode;

  Tensor push(std::unique_ptr<Node> node, Tensor y, DType gradient);
  std::int32_t add_variable(const Shape& shape, DType gradient, bool leaf, Parameter* p);
  void check(const Tensor& y);
  Variable& at(std::int32_t v) { return variables_[static_cast<std::size_t>(v)]; }
  /// A gradient that may be written in place: allocated, or copied if another variable shares its memory.
  GradRef writable(std::int32_t v);
  /// Runs all nodes backwards, the last output's gradient being there.
  void run_nodes();
  void count_down(const Node& node);

  Context& context_;
  bool recording_;
  std::string scope_;  // around the tape; its nodes' scopes are below it, and the backward's are below "backward"
  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<Variable> variables_;
  std::unordered_map<Parameter*, std::int32_t> parameters_;
  std::vector<Parameter*>* noted_ = nullptr;  // without recording: who asked for parameters
  std::function<void(Parameter&)> on_complete_;
};

}  // namespace cald
