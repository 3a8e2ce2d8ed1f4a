#include "engine/autograd.h"

#include <algorithm>

#include "kernels/elementwise.h"
#include "kernels/transfer.h"

namespace cald {
namespace {

/// Views: the gradient of x is the gradient of y under x's shape.
struct ViewBackward {
  static constexpr const char* name = "view";
  Shape shape;
  void backward(const Saved&, const Tensor& dy, Grads& g) const {
    if (dy.ref().is_contiguous()) return g.pass(0, dy.view(shape));
    Tensor dx = g.empty(dy.shape(), dy.dtype());
    g.launch(Copy{dy, dx});
    g.pass(0, dx.view(shape));
  }
};

/// A part of x: its gradient adds to that part of dx, the rest of which is zero.
struct NarrowBackward {
  static constexpr const char* name = "narrow";
  int dim;
  std::int64_t begin, end;
  void backward(const Saved&, const Tensor& dy, Grads& g) const {
    const GradRef dx = g[0];
    if (!dx.add) g.launch(Fill{dx.to, 0.0f});
    TensorRef part = dx.to;
    part.shape[dim] = end - begin;
    if (part.data)
      part.data = static_cast<std::byte*>(part.data) +
                  static_cast<std::size_t>(begin * part.strides[dim]) * size_of(part.dtype);
    g.launch(Add{part, dy, part});
  }
};

}  // namespace

Context& Grads::context() { return tape_.context_; }

GradRef Grads::operator[](int i) {
  const std::int32_t v = inputs_[static_cast<std::size_t>(i)];
  return v < 0 ? GradRef{} : tape_.writable(v);
}

GradRef Grads::reuse(int i, const Tensor& dy) {
  const std::int32_t v = inputs_[static_cast<std::size_t>(i)];
  if (v < 0) return {};
  Tape::Variable& var = tape_.at(v);
  if (var.parameter || var.grad || dy.dtype() != var.dtype || !dy.owns_alone()) return tape_.writable(v);
  var.grad = dy;
  return {dy.ref(), false};
}

Grads::ByRows Grads::by_rows(int i, std::int64_t count) {
  const std::int32_t v = inputs_[static_cast<std::size_t>(i)];
  if (v < 0) return {};
  const Tape::Variable& var = tape_.at(v);
  Parameter* const p = var.parameter;
  // Nothing else may add to it: this is its only use, and it goes as soon as it was used.
  if (!p || !p->is_table || !p->transient_grad || p->has_grad || var.uses != 1 || count >= var.shape[0]) return {};
  p->has_grad = true;
  p->grad = context().empty({count, var.shape[1]}, DType::f32, MemClass::gradients);
  p->grad_rows = context().empty({var.shape[0]}, DType::i32, MemClass::gradients);
  return {{p->grad.ref(), false}, p->grad_rows};
}

void Grads::pass(int i, const Tensor& d) {
  const std::int32_t v = inputs_[static_cast<std::size_t>(i)];
  if (v < 0) return;
  Tape::Variable& var = tape_.at(v);
  if (!var.parameter && !var.grad && d.dtype() == var.dtype) {
    var.grad = d;
    return;
  }
  const GradRef to = tape_.writable(v);
  if (to.add)
    launch(Add{to.to, d, to.to});
  else
    launch(Copy{d, to.to});
}

GradRef Tape::writable(std::int32_t v) {
  Variable& var = at(v);
  if (var.parameter) {
    const bool add = var.parameter->has_grad;
    var.parameter->has_grad = true;
    if (!var.parameter->grad) var.parameter->grad = context_.empty(var.shape, DType::f32, MemClass::gradients);
    return {var.parameter->grad.ref(), add};
  }
  if (!var.grad) {
    var.grad = context_.empty(var.shape, var.dtype);
    return {var.grad.ref(), false};
  }
  if (!var.grad.owns_alone()) {
    Tensor own = context_.empty(var.shape, var.dtype);
    context_.launch(Copy{var.grad, own});
    var.grad = own;
  }
  return {var.grad.ref(), true};
}

std::int32_t Tape::add_variable(const Shape& shape, DType gradient, bool leaf, Parameter* p) {
  variables_.push_back({shape, gradient, {}, p, leaf});
  return static_cast<std::int32_t>(variables_.size()) - 1;
}

Tensor Tape::input(const Tensor& x) {
  Tensor y = x;
  y.variable_ = recording_ ? add_variable(x.shape(), x.dtype(), true, nullptr) : -1;
  return y;
}

Tensor Tape::parameter(Parameter& p) {
  if (noted_) noted_->push_back(&p);
  if (!recording_ || !(p.grad || p.transient_grad)) return p.value;
  const auto [it, fresh] = parameters_.try_emplace(&p, -1);
  if (fresh) it->second = add_variable(p.shape, DType::f32, true, &p);
  Tensor y = p.value;
  y.variable_ = it->second;
  return y;
}

Tensor Tape::push(std::unique_ptr<Node> node, Tensor y, DType gradient) {
  node->output = add_variable(y.shape(), gradient, false, nullptr);
  for (const std::int32_t v : node->inputs)
    if (v >= 0) ++at(v).uses;
  node->scope = context_.scope_within(scope_);
  y.variable_ = node->output;
  nodes_.push_back(std::move(node));
  return y;
}

Tensor Tape::cast(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  context_.set_op("cast");
  Tensor y = context_.empty(x.shape(), dtype);
  context_.launch(Copy{x, y});
  y.variable_ = x.variable();
  return y;
}

Tensor Tape::view(const Tensor& x, const Shape& shape) {
  Tensor y = x.detach().view(shape);
  if (x.variable() < 0) return y;
  auto node = std::make_unique<OpNode<ViewBackward>>(ViewBackward{x.shape()});
  node->inputs = {x.variable()};
  return push(std::move(node), y, at(x.variable()).dtype);
}

Tensor Tape::narrow(const Tensor& x, int dim, std::int64_t begin, std::int64_t end) {
  if (dim < 0) dim += x.rank();
  Tensor y = x.detach().narrow(dim, begin, end);
  if (x.variable() < 0) return y;
  auto node = std::make_unique<OpNode<NarrowBackward>>(NarrowBackward{dim, begin, end});
  node->inputs = {x.variable()};
  return push(std::move(node), y, at(x.variable()).dtype);
}

void Tape::backward(const Tensor& loss) {
  if (loss.variable() < 0) throw Error("backward: the loss depends on nothing that is differentiated");
  if (loss.numel() != 1) throw Error("backward: the loss has shape " + loss.shape().str() + ", wanted one element");
  context_.set_op("backward");
  const Context::Scope phase(context_, "backward");
  const GradRef seed = writable(loss.variable());
  context_.launch(Fill{seed.to, 1.0f});
  run_nodes();
}

void Tape::run_nodes() {
  while (!nodes_.empty()) {
    const std::unique_ptr<Node> node = std::move(nodes_.back());
    nodes_.pop_back();
    const Tensor dy = std::move(at(node->output).grad);
    at(node->output).grad = {};
    if (dy) {
      context_.set_op(node->op_name());
      const Context::Scope scope(context_, node->scope);
      Grads g(*this, node->inputs);
      node->backward(dy, g);
    }
    count_down(*node);
  }
}

void Tape::count_down(const Node& node) {
  for (const std::int32_t v : node.inputs) {
    if (v < 0 || --at(v).uses > 0) continue;
    Parameter* const p = at(v).parameter;
    if (p && p->has_grad && on_complete_) on_complete_(*p);
  }
}

/// Inputs: x, then the parameters that the body uses, so that the tape knows when their gradients are complete.
struct Tape::RecomputeNode : Node {
  explicit RecomputeNode(Body b) : body(std::move(b)) {}
  const char* op_name() const override { return "recompute"; }
  void backward(const Tensor& dy, Grads& g) override {
    Tape again(g.context());
    const Tensor x = g.wanted(0) ? again.input(saved[0]) : saved[0];
    const std::int32_t y = body(again, x).variable();
    again.at(y).grad = dy;
    // The body's parts are added to what the gradient of x holds already, in the order of the tape that keeps
    // everything: the same bits.
    Variable* const outer = g.wanted(0) ? &g.tape_.at(inputs[0]) : nullptr;
    if (outer) again.at(x.variable()).grad = std::move(outer->grad);
    again.run_nodes();
    if (outer) outer->grad = std::move(again.at(x.variable()).grad);
  }
  Body body;
};

Tensor Tape::recompute(Body body, const Tensor& x) {
  if (!recording_) return body(*this, x);
  std::vector<Parameter*> used;
  Tensor y;
  {
    Tape once(context_, false);
    once.noted_ = &used;
    y = body(once, x.detach());
  }
  auto node = std::make_unique<RecomputeNode>(std::move(body));
  node->inputs = {x.variable()};
  for (Parameter* p : used) node->inputs.push_back(parameter(*p).variable());
  if (std::all_of(node->inputs.begin(), node->inputs.end(), [](std::int32_t v) { return v < 0; })) return y;
  node->saved = {x.detach()};
  return push(std::move(node), y, y.dtype());
}

Tensor Tape::grad(const Tensor& x) const {
  if (x.variable() < 0) return {};
  return variables_[static_cast<std::size_t>(x.variable())].grad;
}

void Tape::check(const Tensor& y) {
  if ((y.dtype() != DType::f32 && y.dtype() != DType::bf16) || context_.meta()) return;
  Tensor flag = context_.empty({1}, DType::i32);
  context_.launch(Fill{flag, 0.0f});
  context_.launch(FindNonFinite{y, flag});
  std::int32_t found = 0;
  context_.launch(Download{flag, &found});
  context_.synchronize();
  if (found != 0)
    throw Error("the first op with a value that is not finite is " + std::string(context_.op()) + " in " +
                (context_.scope().empty() ? "the model" : context_.scope()));
}

}  // namespace cald
