// A trained tensor with its gradient, and the ordered set of them that a model declares.
#pragma once
#include <deque>
#include <functional>
#include <string>
#include <unordered_map>

#include "engine/tensor.h"

namespace cald {

/// A weight (out, in) in bf16 as products read it best.
struct WeightCopies {
  Tensor forward;   ///< for x W^T
  Tensor backward;  ///< for dy W; absent: the other serves both
  explicit operator bool() const { return static_cast<bool>(forward); }
};

/// Memory for one of them, which a Copy of the weight fills. Absent where the other serves both.
Tensor weight_copy(const Shape& weight, Packing packing, Allocator& memory, MemClass cls, const char* name);

struct Parameter {
  std::string name;     ///< the checkpoint's tensor name
  Tensor value;         ///< contiguous f32; of a model that never learns, an operand as its products read it best
  WeightCopies copies;  ///< of value, which whoever changes it renews; absent: products round value themselves
  Tensor grad;          ///< f32, same shape; absent if it is not trained, or while a transient one is not there
  Tensor grad_rows;     ///< (rows of value) i32; if present, grad is by rows: see AdamWSlot
  Shape shape;
  std::size_t number = 0;       ///< in the order of declaration
  bool is_operand = false;      ///< enters matrix products and nothing else, there rounded to Exec::compute
  bool is_new = false;          ///< created by a conversion: it has its own learning rate
  bool is_table = false;        ///< (V, D), of which rows are looked up and nothing else: its gradient may be by rows
  bool transient_grad = false;  ///< grad takes memory of the step when it is first written, until it is used
  bool has_grad = false;        ///< grad holds a sum begun in this optimizer step, so the next backward adds to it

  /// Sets the value and its copies; `set` receives the memory for all elements in f32.
  void fill(const std::function<void(float* values)>& set) const;
  /// The next backward sets the gradient; a transient one gives back its memory.
  void forget_grad() {
    has_grad = false;
    if (transient_grad) grad = grad_rows = {};
  }
};

/// Where the gradients of a set of parameters live: nowhere, in memory of their own, or within the step alone.
enum class Gradients { none, kept, transient };

/// Parameters in the order of their declaration, which is the order of every sum over them.
class ParameterSet {
 public:
  /// Declares a parameter without memory. Error if the name is taken.
  Parameter& declare(const std::string& name, const Shape& shape, bool is_new = false);
  /// Gives every parameter its value (class `cls`), in f32; undefined until filled. No gradients yet.
  void allocate(Allocator& memory, MemClass cls);
  /// The same for a model that never learns. Where products round their operands (exec.compute), it holds these as they
  /// are read, so that nothing that it computes changes.
  void allocate_frozen(Allocator& memory, MemClass cls, const Exec& exec);
  /// Bytes that allocate_frozen() would take.
  std::size_t frozen_bytes(const Exec& exec) const;
  /// Where products round their operands, gives these copies as they are read (class `cls`), in which a step is spared
  /// rounding them again and again. The values must be there.
  void keep_copies(Allocator& memory, MemClass cls, const Exec& exec);
  /// Bytes that keep_copies() would take.
  std::size_t copy_bytes(const Exec& exec) const;
  /// Decides about the gradients; may be called again.
  void set_gradients(Allocator& memory, Gradients where);
  /// Forgets all gradients: the next backward sets instead of adding. Those of transient ones give back their memory.
  void clear_gradients();
  Parameter* find(const std::string& name);
  std::deque<Parameter>& all() { return all_; }
  const std::deque<Parameter>& all() const { return all_; }
  std::int64_t numel() const;

 private:
  std::deque<Parameter> all_;  // a deque: addresses stay valid
  std::unordered_map<std::string, Parameter*> by_name_;
};

}  // namespace cald
