// How order is known. Every thread has a vector clock; but since a block's barrier orders all that came before it, the
// clock needs only the time since the last barrier of its own warp's 32 lanes, and the count of barriers (`epoch`,
// which also grows at each block and launch) stands for everybody else. An access is remembered as a Stamp: epoch,
// thread and the thread's own clock. It happened before the running thread's next step if
//   - an older launch made it, or a barrier of this block has passed since, or
//   - the same thread made it, or
//   - a lane of the same warp made it, at a time that this lane has learnt at a warp collective since, or
//   - another block made it before a __threadfence, after which it updated a word atomically that this block has
//     updated since.
#include "kernels/cuda/emulation/race.h"

#include <sys/mman.h>

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "engine/base/error.h"
#include "kernels/cuda/emulation/memory.h"
#include "kernels/cuda/emulation/scheduler.h"
#include "kernels/cuda/emulation/source_line.h"

namespace cald::emulation::race {
namespace {

constexpr unsigned kWarp = 32;
constexpr std::size_t kCellBytes = 2;  // of memory that one shadow cell watches: a bf16 is alone in its cell

struct Stamp {
  std::uint64_t epoch : 32, thread : 10, clock : 17, bytes : 2, atomic : 1, in_flight : 1, : 1;
  std::uint32_t code;  // of the access, relative to code_base(); epoch 0: none
};

// Two readers are kept, the last and the last of another warp: whatever thread writes next without a barrier between,
// one of them is not of its warp if any reader was not.
struct Cell {
  Stamp write, reader, other_reader;
};

struct Clock {
  std::uint32_t seen[kWarp];  // seen[own lane] is the thread's own time
};

/// What a block has done before a fence and told by an atomic update: everything in epochs [begin, fence), and what
/// `thread` itself did up to `update`.
struct Release {
  std::uint32_t begin, fence, update;
  unsigned thread;
};

/// A release that thread `by` of the running block has learnt of, and with it, after a barrier, the whole block.
struct Acquired : Release {
  unsigned by;
  std::uint32_t since;
};

std::uint32_t epoch = 0, launch_epoch = 0, block_epoch = 0;
std::vector<Clock> clocks;
std::vector<std::uint32_t> fenced;                           // by thread: the epoch of its last fence, 0: none
std::unordered_map<const void*, std::vector<Release>> told;  // by the word updated, of the running launch
std::vector<Acquired> acquired;                              // by the running block

const char* code_base() { return reinterpret_cast<const char*>(&launch_begins); }
std::uint32_t code_offset(const void* pc) {
  return static_cast<std::uint32_t>(static_cast<const char*>(pc) - code_base());
}
std::string source_of(const Stamp& s) { return source_line(code_base() + static_cast<std::int32_t>(s.code)); }

Cell* shadow() {
  static Cell* cells = [] {
    const std::size_t count = (kSharedArena + kDeviceArena) / kCellBytes;
    void* p =
        mmap(nullptr, count * sizeof(Cell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw Error("CUDA emulation: cannot reserve the race detector's address space");
    return static_cast<Cell*>(p);
  }();
  return cells;
}

bool told_to(const Stamp& s, unsigned thread) {
  return std::any_of(acquired.begin(), acquired.end(), [&](const Acquired& a) {
    const bool released = s.epoch >= a.begin && (s.epoch < a.fence || (s.thread == a.thread && s.epoch <= a.update));
    return released && (a.by == thread || a.since < epoch);
  });
}

void atomic_update(unsigned thread, const void* p) {
  if (!told.empty())
    for (const Release& r : told[p])
      if (r.begin != block_epoch) acquired.push_back({r, thread, epoch});
  if (fenced[thread]) told[p].push_back({block_epoch, fenced[thread], epoch, thread});
}

bool happened_before(const Stamp& s, unsigned thread, bool shared) {
  if (s.epoch < launch_epoch) return true;
  if (s.epoch < block_epoch) return shared || told_to(s, thread);  // another block's shared memory is another object
  if (s.epoch < epoch || s.thread == thread) return true;
  return s.thread / kWarp == thread / kWarp && s.clock <= clocks[thread].seen[s.thread % kWarp];
}

const char* name(const Stamp& s, bool write) { return s.atomic ? "atomic" : write ? "write" : "read"; }

std::string conflict(const Stamp& now, bool now_writes, const Stamp& before, bool before_wrote, const void* p) {
  return std::string("race: ") + name(now, now_writes) + " of " + (in_shared(p) ? "shared" : "device") +
         " memory, not ordered after the " + name(before, before_wrote) + " by thread " +
         std::to_string(before.thread) + (before.epoch < block_epoch ? " of another block" : "") + " at " +
         source_of(before);
}

std::string in_flight(const Stamp& now, bool writes, const Stamp& issue) {
  return std::string("race: ") + name(now, writes) + " of shared memory while the cp.async at " + source_of(issue) +
         " may still write it: no cp.async wait before";
}

void check_cell(Cell& cell, const Stamp& now, Access kind, const void* p) {
  const bool shared = in_shared(p);
  const bool writes = kind != Access::read;
  const bool overlaps = (cell.write.bytes & now.bytes) != 0;
  if (cell.write.in_flight && kind != Access::land && overlaps && cell.write.epoch >= block_epoch)
    fail(source_of(now), in_flight(now, writes, cell.write));
  auto conflicts = [&](const Stamp& s) { return (s.bytes & now.bytes) && !happened_before(s, now.thread, shared); };
  if (conflicts(cell.write) && !(cell.write.atomic && now.atomic))
    fail(source_of(now), conflict(now, writes, cell.write, true, p));
  if (!writes) {
    if (cell.reader.epoch >= block_epoch && cell.reader.thread / kWarp != now.thread / kWarp)
      cell.other_reader = cell.reader;
    cell.reader = now;
    return;
  }
  for (const Stamp& s : {cell.reader, cell.other_reader})
    if (conflicts(s)) fail(source_of(now), conflict(now, writes, s, false, p));
  cell.write = now;
}

}  // namespace

void launch_begins(unsigned threads) {
  launch_epoch = ++epoch;
  clocks.resize(threads);
  told.clear();
}

void block_begins() {
  block_epoch = ++epoch;
  fenced.assign(clocks.size(), 0);
  acquired.clear();
  for (std::size_t t = 0; t < clocks.size(); ++t) {
    clocks[t] = {};
    clocks[t].seen[t % kWarp] = 1;
  }
}

void barrier() { ++epoch; }

void fence(unsigned thread) { fenced[thread] = epoch; }

void warp_met(unsigned first, unsigned lanes) {
  Clock joined = {};
  auto each = [&](auto&& act) {
    for (unsigned lane = 0; lane < kWarp; ++lane)
      if (lanes >> lane & 1) act(clocks[first + lane], lane);
  };
  each([&](const Clock& c, unsigned) {
    for (unsigned i = 0; i < kWarp; ++i) joined.seen[i] = std::max(joined.seen[i], c.seen[i]);
  });
  each([&](Clock& c, unsigned lane) {
    c = joined;
    ++c.seen[lane];
  });
}

void access(unsigned thread, const void* p, std::size_t bytes, Access kind, const void* pc) {
  Stamp now = {};
  now.epoch = epoch;
  now.thread = thread;
  now.clock = clocks[thread].seen[thread % kWarp];
  now.atomic = kind == Access::atomic;
  now.in_flight = kind == Access::issue;
  now.code = code_offset(pc);
  if (now.atomic) atomic_update(thread, p);
  const auto begin = static_cast<std::size_t>(static_cast<const char*>(p) - arena_base);
  for (std::size_t c = begin / kCellBytes; c * kCellBytes < begin + bytes; ++c) {
    const std::size_t first = std::max(begin, c * kCellBytes), last = std::min(begin + bytes, (c + 1) * kCellBytes);
    now.bytes = (last - first == kCellBytes) ? 3 : (first % kCellBytes ? 2 : 1);
    check_cell(shadow()[c], now, kind, p);
  }
}

}  // namespace cald::emulation::race
