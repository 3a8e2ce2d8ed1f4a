// What the instrumented build listens to: with kernels compiled by -fsanitize=thread, observe.cpp receives every load
// and store of a kernel. The plain build has no observer.
#pragma once
#include <cstddef>

#include "kernels/cuda/emulation/memory.h"

namespace cald::emulation {

/// issue: a cp.async may write from now on; land: its issuer has waited, so it has written by now.
enum class Access { read, write, atomic, issue, land };

struct Grid;

class Observer {
 public:
  virtual ~Observer() = default;
  virtual void launch_begins(const Grid& grid) = 0;
  virtual void block_begins() = 0;
  virtual void block_ends() = 0;
  /// All threads of the block have met.
  virtual void barrier() = 0;
  /// Lanes of the warp whose first thread is `first` have met.
  virtual void warp_met(unsigned first, unsigned lanes) = 0;
  /// Thread `thread` has called __threadfence.
  virtual void fence(unsigned thread) = 0;
  /// Thread `thread` of the running block touches [p, p + bytes) of shared or device memory from the code at `pc`.
  virtual void access(unsigned thread, const void* p, std::size_t bytes, Access kind, const void* pc) = 0;
};

inline Observer* observer = nullptr;

/// Tells the observer, if there is one, of an access by the running thread.
void note_access(const void* p, std::size_t bytes, Access kind, const void* pc);
/// An atomic access by the caller of this function.
void note_atomic(const void* p, std::size_t bytes);
void note_fence();

}  // namespace cald::emulation
