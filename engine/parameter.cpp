#include "engine/parameter.h"

namespace cald {

Parameter& ParameterSet::declare(const std::string& name, const Shape& shape, bool is_new) {
  if (by_name_.count(name)) throw Error("parameter '" + name + "' is declared twice");
  Parameter& p = all_.emplace_back();
  p.name = name;
  p.shape = shape;
  p.is_new = is_new;
  by_name_[name] = &p;
  return p;
}

void ParameterSet::allocate(Allocator& memory, MemClass cls, bool trained) {
  for (Parameter& p : all_) {
    const std::size_t bytes = static_cast<std::size_t>(p.shape.numel()) * size_of(DType::f32);
    p.value = Tensor(memory.allocate(bytes, cls, p.name.c_str()), p.shape, DType::f32);
    if (trained) p.grad = Tensor(memory.allocate(bytes, MemClass::gradients, p.name.c_str()), p.shape, DType::f32);
  }
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
