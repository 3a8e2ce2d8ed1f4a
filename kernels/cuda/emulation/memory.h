// The emulated address space: one mapping that holds the running block's shared memory and, behind it, device memory.
// Fresh memory is 0xFF, a NaN in every float type. Guards lie between objects; AddressSanitizer knows them.
#pragma once
#include <cstddef>
#include <cstdint>

namespace cald::emulation {

constexpr std::size_t kSharedArena = std::size_t{512} << 10;
constexpr std::size_t kDeviceArena = std::size_t{16} << 30;  ///< address space only; pages are committed when touched
constexpr std::size_t kStaticSharedLimit = 48 << 10;
constexpr std::size_t kSharedLimit = 163 << 10;  ///< sm_80, opt-in; sm_90 has more

/// Start of the mapping: [base, base + kSharedArena) is shared memory, device memory follows.
extern char* const arena_base;

inline bool in_shared(const void* p) {
  return static_cast<std::size_t>(static_cast<const char*>(p) - arena_base) < kSharedArena;
}
inline bool in_device(const void* p) {
  return static_cast<std::size_t>(static_cast<const char*>(p) - arena_base - kSharedArena) < kDeviceArena;
}

/// Device memory, aligned to 256 bytes and filled with 0xFF; null when there is none left.
void* device_allocate(std::size_t bytes);
/// False when `p` is not the start of an allocation.
bool device_free(void* p);
/// Whether [p, p + bytes) lies in one live device allocation.
bool device_holds(const void* p, std::size_t bytes);
std::size_t device_bytes_free();

/// The shared memory of the running block. A launch lays it out once; every block starts with all of it 0xFF.
namespace shared_memory {
void begin_launch(std::size_t dynamic_bytes);
void begin_block();
void* dynamic();
/// The static array known by `tag`; the first call of a launch places it. Null when the limits are exceeded.
void* static_array(const void* tag, std::size_t bytes, std::size_t alignment);
/// Whether [p, p + bytes) lies in one of the block's arrays.
bool holds(const void* p, std::size_t bytes);
}  // namespace shared_memory

}  // namespace cald::emulation
