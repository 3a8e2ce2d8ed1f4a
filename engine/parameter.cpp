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

std::size_t bytes_of(const Parameter& p, DType dtype) {
  return static_cast<std::size_t>(p.shape.numel()) * size_of(dtype);
}

Tensor like(const Parameter& p, Allocator& memory, MemClass cls, DType dtype = DType::f32) {
  return Tensor(memory.allocate(bytes_of(p, dtype), cls, p.name.c_str()), p.shape, dtype);
}

DType held_as(const Parameter& p, DType operands) { return p.is_operand ? operands : DType::f32; }

}  // namespace

void ParameterSet::allocate(Allocator& memory, MemClass cls, DType operands) {
  for (Parameter& p : all_) p.value = like(p, memory, cls, held_as(p, operands));
}

std::size_t ParameterSet::bytes(DType operands) const {
  std::size_t n = 0;
  for (const Parameter& p : all_) n += bytes_of(p, held_as(p, operands));
  return n;
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
