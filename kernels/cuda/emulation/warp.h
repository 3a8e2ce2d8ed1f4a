// Warp shuffles and votes without their types: the device language wraps them.
#pragma once
#include <cstddef>

#include "kernels/cuda/emulation/scheduler.h"

namespace cald::emulation {

/// Replaces `value` (at most 16 bytes) by lane `source`'s; a negative source keeps it. Fails when the source lane is
/// not among the lanes that take part.
void shuffle(const char* op, unsigned mask, void* value, std::size_t bytes, int source, const Location& at);

struct Vote {
  unsigned lanes;  ///< that took part
  unsigned yes;    ///< of these, with a nonzero predicate
};
Vote vote(const char* op, unsigned mask, int predicate, const Location& at);

/// The source lane of each kind of shuffle in segments of `width` lanes; -1 where the lane keeps its own value.
int shuffle_index(int lane, int width);
int shuffle_up(unsigned delta, int width);
int shuffle_down(unsigned delta, int width);
int shuffle_xor(int bits, int width);

}  // namespace cald::emulation
