#include "kernels/cuda/emulation/memory.h"

#include <sys/mman.h>

#include <cstring>
#include <iterator>
#include <map>
#include <tuple>
#include <vector>

#include "engine/base/error.h"

// Present only where AddressSanitizer is linked.
extern "C" [[gnu::weak]] void __asan_poison_memory_region(void const volatile*, std::size_t);
extern "C" [[gnu::weak]] void __asan_unpoison_memory_region(void const volatile*, std::size_t);

namespace cald::emulation {
namespace {

constexpr std::size_t kGuard = 256;

void poison(const void* p, std::size_t bytes) {
  if (__asan_poison_memory_region) __asan_poison_memory_region(p, bytes);
}

void unpoison(const void* p, std::size_t bytes) {
  if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(p, bytes);
}

std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

char* map_arena() {
  void* p = mmap(nullptr, kSharedArena + kDeviceArena, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw Error("CUDA emulation: cannot reserve 16 GiB of address space");
  return static_cast<char*>(p);
}

struct DeviceHeap {
  std::map<const char*, std::size_t> live;        // start -> bytes
  std::multimap<std::size_t, char*> free_blocks;  // capacity -> start
  std::size_t used = 0;                           // bytes of the arena ever given out
  std::size_t held = 0;
  const char* recent_start = nullptr;  // the allocation that device_holds found last
  std::size_t recent_bytes = 0;
};

DeviceHeap& heap() {
  static DeviceHeap h;
  return h;
}

std::size_t capacity(std::size_t bytes) { return round_up(bytes, kGuard) + kGuard; }

}  // namespace

char* const arena_base = map_arena();

void* device_allocate(std::size_t bytes) {
  DeviceHeap& h = heap();
  const std::size_t need = capacity(bytes);
  char* start;
  auto after = h.free_blocks.upper_bound(need);  // behind the newest block of this capacity, if there is one
  if (after != h.free_blocks.begin() && std::prev(after)->first == need) {
    start = std::prev(after)->second;
    h.free_blocks.erase(std::prev(after));
  } else {
    if (need > kDeviceArena - h.used) return nullptr;
    start = arena_base + kSharedArena + h.used;
    h.used += need;
  }
  unpoison(start, bytes);
  poison(start + bytes, need - bytes);
  std::memset(start, 0xFF, bytes);
  h.live[start] = bytes;
  h.held += need;
  return start;
}

bool device_free(void* p) {
  DeviceHeap& h = heap();
  auto found = h.live.find(static_cast<char*>(p));
  if (found == h.live.end()) return false;
  std::memset(p, 0xFF, found->second);
  poison(p, found->second);
  h.free_blocks.emplace(capacity(found->second), static_cast<char*>(p));
  h.held -= capacity(found->second);
  h.live.erase(found);
  h.recent_bytes = 0;
  return true;
}

bool device_holds(const void* p, std::size_t bytes) {
  DeviceHeap& h = heap();
  const char* first = static_cast<const char*>(p);
  auto in_recent = [&] { return first >= h.recent_start && first + bytes <= h.recent_start + h.recent_bytes; };
  if (in_recent()) return true;
  auto next = h.live.upper_bound(first);
  if (next == h.live.begin()) return false;
  std::tie(h.recent_start, h.recent_bytes) = *--next;
  return in_recent();
}

std::size_t device_bytes_free() { return kDeviceArena - heap().held; }

namespace shared_memory {
namespace {

struct Array {
  const void* tag;  // null: the dynamic array
  char* start;
  std::size_t bytes;
};

struct Layout {
  std::vector<Array> arrays;
  std::size_t end = 0;           // of the arena in use, guards included
  std::size_t static_bytes = 0;  // as the hardware would count them
};

Layout layout;

char* place(const void* tag, std::size_t bytes, std::size_t alignment) {
  const std::size_t at = round_up(layout.end + kGuard, alignment);
  char* start = arena_base + at;
  layout.end = at + bytes;
  layout.arrays.push_back({tag, start, bytes});
  unpoison(start, bytes);
  std::memset(start, 0xFF, bytes);
  return start;
}

}  // namespace

void begin_launch(std::size_t dynamic_bytes) {
  layout = {};
  poison(arena_base, kSharedArena);
  place(nullptr, dynamic_bytes, 128);
}

void begin_block() {
  for (const Array& a : layout.arrays) std::memset(a.start, 0xFF, a.bytes);
}

void* dynamic() { return layout.arrays.front().start; }

void* static_array(const void* tag, std::size_t bytes, std::size_t alignment) {
  for (const Array& a : layout.arrays)
    if (a.tag == tag) return a.start;
  layout.static_bytes = round_up(layout.static_bytes, alignment) + bytes;
  if (layout.static_bytes > kStaticSharedLimit) return nullptr;
  if (layout.static_bytes + layout.arrays.front().bytes > kSharedLimit) return nullptr;
  return place(tag, bytes, alignment);
}

bool holds(const void* p, std::size_t bytes) {
  const char* first = static_cast<const char*>(p);
  for (const Array& a : layout.arrays)
    if (first >= a.start && first + bytes <= a.start + a.bytes) return true;
  return false;
}

}  // namespace shared_memory
}  // namespace cald::emulation
