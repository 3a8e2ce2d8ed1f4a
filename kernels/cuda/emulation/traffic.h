// Counts a kernel's memory traffic in the instrumented build, from what g++ leaves of its loads and stores. Requests
// are put together by warp: the accesses that the lanes of a warp make from the same instruction between two meetings
// of the warp are one request, in the order in which each lane makes them.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/emulation/observer.h"

namespace cald::emulation {

struct KernelTraffic {
  const void* kernel = nullptr;
  std::uint64_t launches = 0, blocks = 0;
  std::uint64_t loaded = 0, stored = 0;  ///< bytes of device memory that threads asked for; an atomic counts as both
  std::uint64_t sectors = 0;             ///< of 32 bytes that the warps' requests touch
  std::uint64_t shared_requests = 0;     ///< wavefronts that shared memory would need without bank conflicts
  std::uint64_t bank_conflicts = 0;      ///< wavefronts on top of that
  unsigned worst_conflict = 0;           ///< the most of them that one request needs: 1 where two lanes share a bank
};

/// Of every kernel launched since the last clear, in the order of their first launches. Empty in the plain build.
std::vector<KernelTraffic> kernel_traffic();
void clear_kernel_traffic();
/// One line a kernel, with a heading.
std::string traffic_table();

namespace traffic {
void launch_begins(const void* kernel, unsigned threads);
void block_begins();
void block_ends();
void barrier();
void warp_met(unsigned first, unsigned lanes);
void access(unsigned thread, const void* p, std::size_t bytes, Access kind, const void* pc);
}  // namespace traffic

}  // namespace cald::emulation
