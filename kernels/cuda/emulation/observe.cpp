// The instrumented build's ears. Kernels compiled with -fsanitize=thread, and linked without it, call __tsan_* for
// every access; these definitions take the place of ThreadSanitizer's library. A plain build never asks for them, so
// the linker leaves this file out and `observer` stays null. This file is compiled without sanitizers.
#include "kernels/cuda/emulation/observer.h"

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/emulation/memory.h"
#include "kernels/cuda/emulation/race.h"
#include "kernels/cuda/emulation/scheduler.h"
#include "kernels/cuda/emulation/source_line.h"
#include "kernels/cuda/emulation/traffic.h"

namespace cald::emulation {
namespace {

class Listener : public Observer {
 public:
  Listener() { observer = this; }

  void launch_begins(const Grid& grid) override {
    const unsigned threads = grid.threads.x * grid.threads.y * grid.threads.z;
    race::launch_begins(threads);
    traffic::launch_begins(grid.kernel, threads);
  }
  void block_begins() override {
    race::block_begins();
    traffic::block_begins();
  }
  void block_ends() override { traffic::block_ends(); }
  void barrier() override {
    race::barrier();
    traffic::barrier();
  }
  void warp_met(unsigned first, unsigned lanes) override {
    race::warp_met(first, lanes);
    traffic::warp_met(first, lanes);
  }
  void fence(unsigned thread) override { race::fence(thread); }
  void access(unsigned thread, const void* p, std::size_t bytes, Access kind, const void* pc) override {
    if (in_shared(p) ? !shared_memory::holds(p, bytes) : !device_holds(p, bytes))
      fail(source_line(pc), in_shared(p) ? "access outside the block's shared memory" : "access outside device memory");
    race::access(thread, p, bytes, kind, pc);
    traffic::access(thread, p, bytes, kind, pc);
  }
};

Listener listener;

inline void hear(const void* p, std::size_t bytes, Access kind, const void* pc) {
  if (in_shared(p) || in_device(p)) note_access(p, bytes, kind, pc);
}

/// A copy of a whole struct, which a GPU makes in pieces of at most 16 bytes.
void hear_range(const char* p, std::size_t bytes, Access kind, const void* pc) {
  for (std::size_t done = 0; done < bytes; done += 16)
    hear(p + done, std::min<std::size_t>(bytes - done, 16), kind, pc);
}

}  // namespace
}  // namespace cald::emulation

using cald::emulation::Access;
using cald::emulation::hear;
using cald::emulation::hear_range;

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read_range(void* p, unsigned long n) {
  hear_range(static_cast<char*>(p), n, Access::read, __builtin_return_address(0));
}
void __tsan_write_range(void* p, unsigned long n) {
  hear_range(static_cast<char*>(p), n, Access::write, __builtin_return_address(0));
}

#define CALD_HOOK(name, bytes, kind) \
  void __tsan_##name##bytes(void* p) { hear(p, bytes, Access::kind, __builtin_return_address(0)); }
#define CALD_HOOKS(bytes)                  \
  CALD_HOOK(read, bytes, read)             \
  CALD_HOOK(write, bytes, write)           \
  CALD_HOOK(unaligned_read, bytes, read)   \
  CALD_HOOK(unaligned_write, bytes, write) \
  CALD_HOOK(volatile_read, bytes, read)    \
  CALD_HOOK(volatile_write, bytes, write)
CALD_HOOKS(1)
CALD_HOOKS(2)
CALD_HOOKS(4)
CALD_HOOKS(8)
CALD_HOOKS(16)

// Host code in the same files uses std::atomic and the guards of local statics. Kernels have atomicAdd and the like.
#define CALD_ATOMIC_UPDATE(bits, name, builtin)                                                                \
  std::int##bits##_t __tsan_atomic##bits##_##name(volatile std::int##bits##_t* p, std::int##bits##_t v, int) { \
    return __atomic_##builtin(p, v, __ATOMIC_SEQ_CST);                                                         \
  }
#define CALD_ATOMIC_CAS(bits, name)                                                                        \
  int __tsan_atomic##bits##_compare_exchange_##name(volatile std::int##bits##_t* p, std::int##bits##_t* e, \
                                                    std::int##bits##_t v, int, int) {                      \
    return __atomic_compare_exchange_n(p, e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                \
  }
#define CALD_ATOMICS(bits)                                                                      \
  std::int##bits##_t __tsan_atomic##bits##_load(const volatile std::int##bits##_t* p, int) {    \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                \
  }                                                                                             \
  void __tsan_atomic##bits##_store(volatile std::int##bits##_t* p, std::int##bits##_t v, int) { \
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                                   \
  }                                                                                             \
  CALD_ATOMIC_UPDATE(bits, exchange, exchange_n)                                                \
  CALD_ATOMIC_UPDATE(bits, fetch_add, fetch_add)                                                \
  CALD_ATOMIC_UPDATE(bits, fetch_sub, fetch_sub)                                                \
  CALD_ATOMIC_UPDATE(bits, fetch_and, fetch_and)                                                \
  CALD_ATOMIC_UPDATE(bits, fetch_or, fetch_or)                                                  \
  CALD_ATOMIC_UPDATE(bits, fetch_xor, fetch_xor)                                                \
  CALD_ATOMIC_CAS(bits, strong)                                                                 \
  CALD_ATOMIC_CAS(bits, weak)
CALD_ATOMICS(8)
CALD_ATOMICS(16)
CALD_ATOMICS(32)
CALD_ATOMICS(64)
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) {}

}  // extern "C"
