// Context: where ops get memory and launch kernels. One per step or evaluation; passed down, never global.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "engine/base/error.h"
#include "engine/base/exec.h"
#include "engine/launch_observer.h"
#include "engine/tensor.h"
#include "kernels/device.h"
#include "kernels/launch.h"

namespace cald {

class Context {
 public:
  /// A meta context (`meta` true) runs shapes only: memory is recorded, no kernel starts.
  Context(Exec exec, Allocator& memory, bool meta = false)
      : exec_(exec), device_(functions_of(exec.device)), memory_(&memory), meta_(meta) {}

  bool meta() const { return meta_; }
  const Exec& exec() const { return exec_; }
  /// The observer sees each launch with its time, for which the device waits before and after it.
  void observe(LaunchObserver* observer) { observer_ = observer; }
  void synchronize() const {
    if (!meta_) device_.synchronize(exec_);
  }
  /// Whether a launch returns before it is done.
  bool runs_ahead() const { return device_.runs_ahead; }
  /// From here on the context's pieces are graphs of this kind and shape, where the device has graphs.
  void use_graphs(std::string kind, std::string shape) { graph_ = {std::move(kind), std::move(shape)}; }
  /// Runs body(), whose launches may go to the device as one graph: it must not wait for the device. Memory that a
  /// launch names must stay as it is until the next synchronize(). `piece` tells the context's graphs apart.
  template <class Body>
  void gather(const char* piece, Body&& body) {
    if (graph_.kind.empty() || meta_ || observer_ || check_finite_) return body();
    device_.begin_graph(exec_, {graph_.kind + "/" + piece, graph_.shape});
    try {
      body();
    } catch (...) {
      device_.end_graph(exec_, false);
      throw;
    }
    device_.end_graph(exec_, true);
  }
  /// With checking on, the tape tests every op's output and throws an Error that names the first non-finite one.
  void check_finite(bool on) { check_finite_ = on; }
  bool checks_finite() const { return check_finite_; }

  Tensor empty(const Shape& shape, DType dtype = DType::f32, MemClass cls = MemClass::activations) {
    const auto bytes = static_cast<std::size_t>(shape.numel()) * size_of(dtype);
    return Tensor(memory_->allocate(bytes, cls, op_), shape, dtype);
  }
  Tensor like(const Tensor& x) { return empty(x.shape(), x.dtype()); }

  template <class Args>
  void launch(const Args& args) {
    const std::size_t scratch_bytes = workspace(args);
    Tensor scratch;
    if (scratch_bytes)
      scratch = empty({static_cast<std::int64_t>((scratch_bytes + 3) / 4)}, DType::f32, MemClass::workspace);
    if (meta_) return;
    Exec exec = exec_;
    exec.workspace = scratch ? scratch.data<void>() : nullptr;
    const ProfileRange range(device_, Args::name);
    try {
      if (!observer_) return dispatch(exec, args);
      device_.synchronize(exec);  // a launch's time is its own
      const auto begin = Launch::Clock::now();
      dispatch(exec, args);
      device_.synchronize(exec);
      observer_->launched({Args::name, op_, scope_, begin, Launch::Clock::now(), cost_of(args)});
    } catch (const Error& e) {
      throw Error(e.kind(), std::string(op_) + " in " + (scope_.empty() ? "the model" : scope_) + ": " + e.what());
    }
  }

  /// Names what runs while it lives: layers and phases, joined by '/'.
  class Scope {
   public:
    Scope(Context& c, const std::string& name)
        : context_(c), length_(c.scope_.size()), range_(c.device_, name.empty() ? nullptr : name.c_str()) {
      if (!name.empty()) c.scope_ += (length_ ? "/" : "") + name;
    }
    ~Scope() { context_.scope_.resize(length_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Context& context_;
    std::size_t length_;
    ProfileRange range_;
  };
  const std::string& scope() const { return scope_; }

  /// What Exec::compute says while it lives.
  class Compute {
   public:
    Compute(Context& c, DType dtype) : context_(c), before_(std::exchange(c.exec_.compute, dtype)) {}
    ~Compute() { context_.exec_.compute = before_; }
    Compute(const Compute&) = delete;
    Compute& operator=(const Compute&) = delete;

   private:
    Context& context_;
    DType before_;
  };
  /// The scopes within the one whose path is `outer`; all, if that is not around.
  std::string scope_within(const std::string& outer) const {
    if (outer.empty() || scope_.rfind(outer, 0) != 0) return scope_;
    return scope_.size() > outer.size() ? scope_.substr(outer.size() + 1) : "";
  }

  /// The op on whose behalf memory is taken; `name` is a string literal.
  void set_op(const char* name) { op_ = name; }
  const char* op() const { return op_; }

 private:
  template <class Args>
  std::size_t workspace(const Args& args) {
    if (exec_.device == Device::cuda) return workspace_bytes<Device::cuda>(exec_, args);
    return workspace_bytes<Device::cpu>(exec_, args);
  }
  template <class Args>
  void dispatch(Exec& exec, const Args& args) {
    if (exec.device == Device::cuda) return run<Device::cuda>(exec, args);
    run<Device::cpu>(exec, args);
  }

  Exec exec_;
  const DeviceFunctions& device_;
  Allocator* memory_;
  bool meta_;
  bool check_finite_ = false;
  LaunchObserver* observer_ = nullptr;
  GraphName graph_;
  std::string scope_;
  const char* op_ = "step";
};

}  // namespace cald
