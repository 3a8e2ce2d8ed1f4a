#include "engine/parameter.h"

namespace cald {

Parameter& ParameterSet::declare(const std::string& name, const Shape& shape, bool is_new) {
  if (by_name_.count(name)) throw Error("parameter '" + name + "' is declared twice");
  Parameter& p = all_.emplace_back();
  p.name = name;
  p.number = all_.size() - 1;
  p.shape = shape;
  p.is_new = is_new;
  by_name_[name] = &p;
  return p;
}

namespace {

Tensor like(const Parameter& p, Allocator& memory, MemClass cls) {
  const std::size_t bytes = static_cast<std::size_t>(p.shape.numel()) * size_of(DType::f32);
  return Tensor(memory.allocate(bytes, cls, p.name.c_str()), p.shape, DType::f32);
}

}  // namespace

void ParameterSet::allocate(Allocator& memory, MemClass cls) {
  for (Parameter& p : all_) p.value = like(p, memory, cls);
}

void ParameterSet::set_gradients(Allocator& memory, Gradients where) {
  for (Parameter& p : all_) {
    p.transient_grad = where == Gradients::transient;
    p.has_grad = false;
    if (where != Gradients::kept)
      p.grad = p.grad_rows = {};
    else if (!p.grad)
      p.grad = like(p, memory, MemClass::gradients);
  }
}

void ParameterSet::clear_gradients() {
  for (Parameter& p : all_) p.forget_grad();
}

Parameter* ParameterSet::find(const std::string& name) {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : it->second;
}

std::int64_t ParameterSet::numel() const {
  std::int64_t n = 0;
  for (const Parameter& p : all_) n += p.shape.numel();
  return n;
}

}  // namespace cald
