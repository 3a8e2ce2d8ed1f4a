// The context switch. This file is compiled without sanitizers.
#include "kernels/cuda/emulation/context.h"

#include <cstdint>

namespace cald::emulation {

#ifdef CALD_EMULATION_UCONTEXT

void Context::start(char* stack, std::size_t bytes, void (*entry)()) {
  getcontext(&state_);
  state_.uc_stack.ss_sp = stack;
  state_.uc_stack.ss_size = bytes;
  state_.uc_link = nullptr;
  makecontext(&state_, entry, 0);
}

void Context::swap(Context& from, Context& to) { swapcontext(&from.state_, &to.state_); }

#else

namespace {

// Pushes the callee-saved registers of the System V ABI, exchanges the stack pointers and pops the other side's.
[[gnu::naked, gnu::noinline]] void exchange(void** /*save: rdi*/, void* /*load: rsi*/) {
  asm volatile(
      "pushq %rbp\n\tpushq %rbx\n\tpushq %r12\n\tpushq %r13\n\tpushq %r14\n\tpushq %r15\n\t"
      "movq %rsp, (%rdi)\n\tmovq %rsi, %rsp\n\t"
      "popq %r15\n\tpopq %r14\n\tpopq %r13\n\tpopq %r12\n\tpopq %rbx\n\tpopq %rbp\n\t"
      "popq %rcx\n\tjmpq *%rcx");  // an indirect jump: a `ret` would defeat the return-address predictor
}

}  // namespace

void Context::start(char* stack, std::size_t bytes, void (*entry)()) {
  // At a function's entry the ABI wants the stack pointer 8 below a multiple of 16; the null word there is the
  // return address that ends a debugger's walk.
  auto top = (reinterpret_cast<std::uintptr_t>(stack) + bytes) & ~std::uintptr_t{15};
  void** slot = reinterpret_cast<void**>(top - 8);
  *slot = nullptr;
  *--slot = reinterpret_cast<void*>(entry);
  for (int saved = 0; saved < 6; ++saved) *--slot = nullptr;
  stack_pointer_ = slot;
}

void Context::swap(Context& from, Context& to) { exchange(&from.stack_pointer_, to.stack_pointer_); }

#endif

}  // namespace cald::emulation
