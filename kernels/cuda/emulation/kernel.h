// What device.cuh needs of the emulator beyond the device language: shared arrays, whole vectors, and the signature of
// a kernel, which the C interface of a launch loses.
#pragma once
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>

#include "kernels/cuda/emulation/observer.h"
#include "kernels/cuda/emulation/scheduler.h"

namespace cald::emulation {

/// The running block's array of this tag; fails when shared memory is exhausted.
void* static_shared(const void* tag, std::size_t bytes, std::size_t alignment,
                    const Location& at = Location::current());

/// Makes a call of the kernel from cudaLaunchKernelExC's array of pointers to arguments, which it copies.
using Binder = std::function<void()> (*)(const void* kernel, void** arguments);
void register_kernel(const void* kernel, Binder binder);
/// Null for a kernel that was never passed to launch().
Binder find_kernel(const void* kernel);

template <class... Parameters>
void register_kernel(void (*kernel)(Parameters...)) {
  register_kernel(reinterpret_cast<const void*>(kernel), [](const void* code, void** arguments) {
    return [&]<std::size_t... I>(std::index_sequence<I...>)->std::function<void()> {
      std::tuple<Parameters...> copies(*static_cast<std::remove_cv_t<Parameters>*>(arguments[I])...);
      auto call = reinterpret_cast<void (*)(Parameters...)>(const_cast<void*>(code));
      return [call, copies] { std::apply(call, copies); };
    }
    (std::index_sequence_for<Parameters...>{});
  });
}

/// Notes an access of `bytes` by the caller's code; fails where `p` is not aligned to them, or points between the
/// objects of shared or device memory.
void note_vector(const void* p, std::size_t bytes, Access kind);

template <class Vector>
[[gnu::noinline, gnu::no_sanitize("thread")]] void copy_hidden(Vector* to, const Vector* from) {
  *to = *from;
}

}  // namespace cald::emulation

namespace cald::cuda {

template <class Vector>
[[gnu::always_inline]] inline Vector load_vector(const void* from) {
  static_assert(sizeof(Vector) == 4 || sizeof(Vector) == 8 || sizeof(Vector) == 16);
  emulation::note_vector(from, sizeof(Vector), emulation::Access::read);
  Vector value;
  emulation::copy_hidden(&value, static_cast<const Vector*>(from));
  return value;
}
template <class Vector>
[[gnu::always_inline]] inline void store_vector(void* to, const Vector& value) {
  static_assert(sizeof(Vector) == 4 || sizeof(Vector) == 8 || sizeof(Vector) == 16);
  emulation::note_vector(to, sizeof(Vector), emulation::Access::write);
  emulation::copy_hidden(static_cast<Vector*>(to), &value);
}

}  // namespace cald::cuda
