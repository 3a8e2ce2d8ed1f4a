#include "kernels/cuda/emulation/kernel.h"

#include <unordered_map>

#include "kernels/cuda/emulation/memory.h"
#include "kernels/cuda/emulation/source_line.h"

namespace cald::emulation {
namespace {

std::unordered_map<const void*, Binder>& binders() {
  static std::unordered_map<const void*, Binder> map;
  return map;
}

}  // namespace

void register_kernel(const void* kernel, Binder binder) { binders()[kernel] = binder; }

Binder find_kernel(const void* kernel) {
  auto found = binders().find(kernel);
  return found == binders().end() ? nullptr : found->second;
}

void* static_shared(const void* tag, std::size_t bytes, std::size_t alignment, const Location& at) {
  void* array = shared_memory::static_array(tag, bytes, alignment < 16 ? 16 : alignment);
  if (!array) fail(at, "shared memory: more than 48 KiB of static arrays, or more than 163 KiB in all");
  return array;
}

void note_vector(const void* p, std::size_t bytes, Access kind) {
  const void* pc = __builtin_return_address(0);
  if (reinterpret_cast<std::uintptr_t>(p) % bytes)
    fail(source_line(pc), "an access of " + std::to_string(bytes) + " bytes is not aligned to them");
  if (in_shared(p) ? !shared_memory::holds(p, bytes) : in_device(p) && !device_holds(p, bytes))
    fail(source_line(pc), in_shared(p) ? "access outside the block's shared memory" : "access outside device memory");
  note_access(p, bytes, kind, pc);
}

}  // namespace cald::emulation
