// A machine context: the registers and the stack of one fiber. The switch is a few instructions of assembly on x86-64
// and swapcontext elsewhere (or where CALD_EMULATION_UCONTEXT is defined).
#pragma once
#include <cstddef>

#if !defined(__x86_64__) && !defined(CALD_EMULATION_UCONTEXT)
#define CALD_EMULATION_UCONTEXT
#endif
#ifdef CALD_EMULATION_UCONTEXT
#include <ucontext.h>
#endif

namespace cald::emulation {

class Context {
 public:
  /// Makes the next switch to this context call `entry`, which never returns, on [stack, stack + bytes).
  void start(char* stack, std::size_t bytes, void (*entry)());

  /// Saves the running context in `from` and goes on with `to`; returns when somebody switches to `from`.
  static void swap(Context& from, Context& to);

 private:
#ifdef CALD_EMULATION_UCONTEXT
  ucontext_t state_;
#else
  void* stack_pointer_ = nullptr;
#endif
};

}  // namespace cald::emulation
