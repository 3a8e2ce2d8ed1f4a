// Executes one kernel: every CUDA thread of the running block is a fiber of the one host thread, blocks run one after
// another. Order of threads and blocks follows the schedule seed. Two primitives stand behind everything that threads
// do together: block_barrier for __syncthreads, and collective for whatever a warp does as one.
#pragma once
#include <vector_types.h>

#include <cstdint>
#include <functional>
#include <source_location>
#include <string>
#include <vector>

// The coordinates of the running thread, as the device language spells them.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace cald::emulation {

using Location = std::source_location;

/// The schedule. Seed 0: threads and blocks ascending, cp.async lands at the wait; 1: descending, cp.async lands at
/// issue; others: random, cp.async lands by coin. The environment variable CALD_EMULATION_SEED gives the first value.
std::uint64_t schedule_seed();
void set_schedule_seed(std::uint64_t seed);

struct Grid {
  dim3 blocks;
  dim3 threads;
  std::size_t dynamic_shared = 0;
  const void* kernel = nullptr;
};

/// Runs `body` once for every thread of the grid. Throws Error ("file:line: op: what happened, block, thread") when a
/// thread fails, threads wait at different barriers, or all that are left wait for each other.
void run_grid(const Grid& grid, const std::function<void()>& body);

/// Ends the kernel: run_grid throws. Only from a running CUDA thread, whose stack is left as it is: no destructor of
/// its frames runs, so the strings are taken over, and nothing else there may own memory.
[[noreturn]] void fail(const Location& at, std::string&& what);
[[noreturn]] void fail(std::string&& where, std::string&& what);

/// Whether a CUDA thread is running now.
bool in_kernel();

struct Arrivals {
  int threads;  ///< that met at the barrier
  int chosen;   ///< of these, with a nonzero predicate
};
Arrivals block_barrier(const char* op, int predicate, const Location& at);

/// The lanes of `mask` meet at one `op`; the last to arrive calls finish(args, lanes), where args[lane] is what the
/// lane passed as `arg` and `lanes` are those that take part (exited lanes of the mask do not). Then all go on.
/// A lane that waits in another op or on another line under the same mask is a failure.
using Finish = void (*)(void* const* args, unsigned lanes, const Location& at);
void collective(const char* op, unsigned mask, void* arg, Finish finish, const Location& at);

unsigned lane_id();
/// Lanes of the running warp that exist and have not exited.
unsigned live_lanes();
/// A coin of the schedule's random numbers for whoever imitates hardware that may do a thing early or late.
bool lands_late();

/// Copies by cp.async that the running thread has issued and not yet waited for.
struct AsyncCopy {
  void* shared;
  const void* global;  ///< null: zeros
  bool landed;
  unsigned group;
  Location at;
};
struct AsyncCopies {
  std::vector<AsyncCopy> pending;
  unsigned group = 0;  ///< that the next copy belongs to
};
AsyncCopies& async_copies();

}  // namespace cald::emulation
