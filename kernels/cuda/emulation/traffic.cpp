#include "kernels/cuda/emulation/traffic.h"

#include <algorithm>
#include <cstdio>

#include "kernels/cuda/emulation/memory.h"
#include "kernels/cuda/emulation/source_line.h"

namespace cald::emulation {
namespace {

constexpr unsigned kWarp = 32;
constexpr std::size_t kLookAhead = 256;  // requests that a lane may have skipped since its last access
constexpr std::size_t kPatience = 8192;  // requests kept open for lanes that have not come so far

/// One instruction of a warp, with the lanes seen so far.
struct Request {
  const void* pc;
  std::uint32_t lanes;
  std::uint8_t bytes;
  bool shared;
  std::uint32_t at[kWarp];  // in the shared arena, or the number of the 32-byte sector of device memory
};

struct WarpRequests {
  std::vector<Request> open;
  std::size_t next[kWarp] = {};  // where in `open` each lane goes on
};

std::vector<KernelTraffic> totals;
std::size_t running = 0;  // index of the running kernel
std::vector<WarpRequests> warps;

/// Distinct values among a few.
unsigned distinct(std::uint32_t* begin, std::uint32_t* end) {
  std::sort(begin, end);
  return static_cast<unsigned>(std::unique(begin, end) - begin);
}

/// Shared memory serves 128 bytes at a time: lanes with 8 bytes come by halves of the warp, with 16 by quarters. Each
/// of its 32 banks gives one 4-byte word a wavefront; lanes that read the same word share it.
void settle_shared(const Request& r, KernelTraffic& total) {
  const unsigned together = r.bytes <= 4 ? 32 : r.bytes <= 8 ? 16 : 8;
  const unsigned words_each = r.bytes <= 4 ? 1 : r.bytes / 4u;
  for (unsigned first = 0; first < kWarp; first += together) {
    std::uint32_t words[kWarp];
    unsigned count = 0;
    for (unsigned lane = first; lane < first + together; ++lane)
      for (unsigned w = 0; w < words_each && (r.lanes >> lane & 1); ++w) words[count++] = r.at[lane] / 4 + w;
    if (count == 0) continue;
    count = distinct(words, words + count);
    unsigned load[32] = {};
    for (unsigned i = 0; i < count; ++i) ++load[words[i] % 32];
    ++total.shared_requests;
    const unsigned more = *std::max_element(load, load + 32) - 1;
    total.bank_conflicts += more;
    total.worst_conflict = std::max(total.worst_conflict, more);
  }
}

void settle(WarpRequests& w) {
  for (Request& r : w.open) {
    if (r.shared) {
      settle_shared(r, totals[running]);
      continue;
    }
    std::uint32_t sectors[kWarp];
    unsigned count = 0;
    for (unsigned lane = 0; lane < kWarp; ++lane)
      if (r.lanes >> lane & 1) sectors[count++] = r.at[lane];
    totals[running].sectors += distinct(sectors, sectors + count);
  }
  w.open.clear();
  std::fill(std::begin(w.next), std::end(w.next), 0);
}

Request& request_of(WarpRequests& w, unsigned lane, const void* pc, std::size_t bytes, bool shared) {
  const std::size_t end = std::min(w.open.size(), w.next[lane] + kLookAhead);
  for (std::size_t i = w.next[lane]; i < end; ++i)
    if (w.open[i].pc == pc && w.open[i].bytes == bytes && !(w.open[i].lanes >> lane & 1)) {
      w.next[lane] = i + 1;
      return w.open[i];
    }
  if (w.open.size() >= kPatience) settle(w);
  if (w.next[lane] == w.open.size()) ++w.next[lane];
  return w.open.emplace_back(Request{pc, 0, static_cast<std::uint8_t>(bytes), shared, {}});
}

}  // namespace

namespace traffic {

void launch_begins(const void* kernel, unsigned threads) {
  auto known = std::find_if(totals.begin(), totals.end(), [&](const KernelTraffic& t) { return t.kernel == kernel; });
  if (known == totals.end()) {
    totals.emplace_back().kernel = kernel;
    known = totals.end() - 1;
  }
  ++known->launches;
  running = static_cast<std::size_t>(known - totals.begin());
  warps.assign((threads + kWarp - 1) / kWarp, {});
}

void block_begins() {
  ++totals[running].blocks;
  for (WarpRequests& w : warps) w.open.clear();
}

void block_ends() { barrier(); }

void barrier() {
  for (WarpRequests& w : warps) settle(w);
}

void warp_met(unsigned first, unsigned lanes) {
  if (lanes == ~0u) settle(warps[first / kWarp]);
}

void access(unsigned thread, const void* p, std::size_t bytes, Access kind, const void* pc) {
  if (kind == Access::land) return;  // counted when it was issued
  const bool shared = in_shared(p);
  KernelTraffic& total = totals[running];
  if (!shared && (kind == Access::read || kind == Access::atomic)) total.loaded += bytes;
  if (!shared && (kind == Access::write || kind == Access::atomic)) total.stored += bytes;
  Request& r = request_of(warps[thread / kWarp], thread % kWarp, pc, bytes, shared);
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(p) - arena_base);
  r.at[thread % kWarp] = static_cast<std::uint32_t>(shared ? offset : offset / 32);
  r.lanes |= 1u << thread % kWarp;
}

}  // namespace traffic

std::vector<KernelTraffic> kernel_traffic() { return totals; }
void clear_kernel_traffic() { totals.clear(); }

std::string traffic_table() {
  std::string table =
      "launches    blocks      loaded B      stored B     sector B  shared wavefronts  of them conflicts  kernel\n";
  for (const KernelTraffic& t : totals) {
    char line[160];
    std::snprintf(line, sizeof line, "%8zu %9zu %13zu %13zu %12zu %18zu %18zu  ", std::size_t{t.launches},
                  std::size_t{t.blocks}, std::size_t{t.loaded}, std::size_t{t.stored}, std::size_t{t.sectors * 32},
                  std::size_t{t.shared_requests + t.bank_conflicts}, std::size_t{t.bank_conflicts});
    table += line + function_name(t.kernel) + "\n";
  }
  return table;
}

}  // namespace cald::emulation
