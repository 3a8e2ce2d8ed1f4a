#include "kernels/cuda/emulation/fault.h"

#include <signal.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "kernels/cuda/emulation/scheduler.h"
#include "kernels/cuda/emulation/source_line.h"

extern "C" [[gnu::weak]] void __asan_poison_memory_region(void const volatile*, std::size_t);

namespace cald::emulation {
namespace {

alignas(16) char handler_stack[256 << 10];  // the fault may be that the thread's own stack is full

const char* faulting_code(void* context) {
#ifdef __x86_64__
  const auto at = static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP];
  return reinterpret_cast<const char*>(at) + 1;  // source_line wants what follows the instruction's first byte
#else
  static_cast<void>(context);
  return nullptr;
#endif
}

void on_fault(int number, siginfo_t* info, void* context) {
  if (!in_kernel()) {
    signal(number, SIG_DFL);
    return;  // the instruction faults again
  }
  fail(source_line(faulting_code(context)), "access to address " +
                                                std::to_string(reinterpret_cast<std::uintptr_t>(info->si_addr)) +
                                                ", which is not mapped, or the thread's stack is full");
}

}  // namespace

void catch_faults() {
  static bool done = __asan_poison_memory_region != nullptr;
  if (done) return;
  done = true;
  stack_t stack = {};
  stack.ss_sp = handler_stack;
  stack.ss_size = sizeof handler_stack;
  sigaltstack(&stack, nullptr);
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;  // the handler is left by a switch to the host's stack
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace cald::emulation
