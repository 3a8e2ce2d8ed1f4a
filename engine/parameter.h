// A trained tensor with its gradient, and the ordered set of them that a model declares.
#pragma once
#include <deque>
#include <string>
#include <unordered_map>

#include "engine/tensor.h"

namespace cald {

struct Parameter {
  std::string name;  ///< the checkpoint's tensor name
  Tensor value;      ///< f32, contiguous
  Tensor grad;       ///< same shape; absent if it is not trained
  Shape shape;
  bool is_new = false;    ///< created by a conversion: it has its own learning rate
  bool has_grad = false;  ///< grad holds a sum begun in this optimizer step, so the next backward adds to it
};

/// Parameters in the order of their declaration, which is the order of every sum over them.
class ParameterSet {
 public:
  /// Declares a parameter without memory. Error if the name is taken.
  Parameter& declare(const std::string& name, const Shape& shape, bool is_new = false);
  /// Gives every parameter its value (class `cls`) and, if `trained`, its gradient. Values are undefined until loaded.
  void allocate(Allocator& memory, MemClass cls, bool trained);
  Parameter* find(const std::string& name);
  std::deque<Parameter>& all() { return all_; }
  const std::deque<Parameter>& all() const { return all_; }
  std::int64_t numel() const;

 private:
  std::deque<Parameter> all_;  // a deque: addresses stay valid
  std::unordered_map<std::string, Parameter*> by_name_;
};

}  // namespace cald
