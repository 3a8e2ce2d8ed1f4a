// The happens-before detector of the instrumented build: two accesses to the same bytes, one of them a write, by
// threads that no barrier or warp collective has ordered between them.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/emulation/observer.h"

namespace cald::emulation::race {

void launch_begins(unsigned threads);
void block_begins();
void barrier();
void warp_met(unsigned first, unsigned lanes);
void fence(unsigned thread);
/// Fails the kernel at the first race: "file:line: race: ...".
void access(unsigned thread, const void* p, std::size_t bytes, Access kind, const void* pc);

}  // namespace cald::emulation::race
