#include "engine/parameter.h"

#include "engine/host_access.h"
#include "kernels/gemm.h"

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

std::size_t bytes_of(const Shape& s, DType dtype) { return static_cast<std::size_t>(s.numel()) * size_of(dtype); }

Tensor like(const Parameter& p, Allocator& memory, MemClass cls) {
  return Tensor(memory.allocate(bytes_of(p.shape, DType::f32), cls, p.name.c_str()), p.shape, DType::f32);
}

bool is_rounded(const Parameter& p, const Exec& exec) { return p.is_operand && exec.compute == DType::bf16; }

/// Bytes of weight_copy().
std::size_t copy_bytes_of(const Shape& weight, Device device, Packing packing) {
  const std::size_t packed = packed_bytes(device, weight, packing);
  return packed || packing == Packing::backward ? packed : bytes_of(weight, DType::bf16);
}

void renew(const WeightCopies& copies, const Tensor& value) {
  if (!copies) return;
  look_on_host(value, [&](const float* values) {
    for (const Tensor* copy : {&copies.forward, &copies.backward})
      if (*copy) write_floats(*copy, values);
  });
}

}  // namespace

Tensor weight_copy(const Shape& weight, Packing packing, Allocator& memory, MemClass cls, const char* name) {
  const std::size_t bytes = copy_bytes_of(weight, memory.device(), packing);
  if (!bytes && packing == Packing::backward) return {};
  const bool is_packed = packed_bytes(memory.device(), weight, packing) > 0;
  return Tensor(memory.allocate(bytes, cls, name), weight, DType::bf16, is_packed ? packing : Packing::none);
}

void Parameter::fill(const std::function<void(float*)>& set) const {
  fill_on_host(value, set);
  renew(copies, value);
}

void ParameterSet::allocate(Allocator& memory, MemClass cls) {
  for (Parameter& p : all_) p.value = like(p, memory, cls);
}

void ParameterSet::allocate_frozen(Allocator& memory, MemClass cls, const Exec& exec) {
  for (Parameter& p : all_)
    p.value = is_rounded(p, exec) ? weight_copy(p.shape, Packing::forward, memory, cls, p.name.c_str())
                                  : like(p, memory, cls);
}

std::size_t ParameterSet::frozen_bytes(const Exec& exec) const {
  std::size_t n = 0;
  for (const Parameter& p : all_)
    n += is_rounded(p, exec) ? copy_bytes_of(p.shape, exec.device, Packing::forward) : bytes_of(p.shape, DType::f32);
  return n;
}

void ParameterSet::keep_copies(Allocator& memory, MemClass cls, const Exec& exec) {
  for (Parameter& p : all_) {
    if (!is_rounded(p, exec)) continue;
    p.copies.forward = weight_copy(p.shape, Packing::forward, memory, cls, p.name.c_str());
    p.copies.backward = weight_copy(p.shape, Packing::backward, memory, cls, p.name.c_str());
    renew(p.copies, p.value);
  }
}

std::size_t ParameterSet::copy_bytes(const Exec& exec) const {
  std::size_t n = 0;
  for (const Parameter& p : all_)
    if (is_rounded(p, exec))
      for (const Packing packing : {Packing::forward, Packing::backward})
        n += copy_bytes_of(p.shape, exec.device, packing);
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
