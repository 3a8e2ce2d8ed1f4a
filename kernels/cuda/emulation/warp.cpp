#include "kernels/cuda/emulation/warp.h"

#include <cstring>
#include <string>

namespace cald::emulation {
namespace {

struct Shuffle {
  unsigned char given[16];
  void* value;
  std::size_t bytes;
  int source;
};

void finish_shuffle(void* const* args, unsigned lanes, const Location& at) {
  for (int lane = 0; lane < 32; ++lane) {
    if (!(lanes >> lane & 1)) continue;
    auto& mine = *static_cast<Shuffle*>(args[lane]);
    if (mine.source < 0) continue;
    if (!(lanes >> mine.source & 1))
      fail(at, "shuffle: lane " + std::to_string(lane) + " reads from lane " + std::to_string(mine.source) +
                   ", which does not take part");
    std::memcpy(mine.value, static_cast<Shuffle*>(args[mine.source])->given, mine.bytes);
  }
}

void finish_vote(void* const* args, unsigned lanes, const Location&) {
  unsigned yes = 0;
  for (int lane = 0; lane < 32; ++lane)
    if (lanes >> lane & 1) yes |= static_cast<Vote*>(args[lane])->yes << lane;
  for (int lane = 0; lane < 32; ++lane)
    if (lanes >> lane & 1) *static_cast<Vote*>(args[lane]) = {lanes, yes};
}

int segment(int width) { return static_cast<int>(lane_id()) & ~(width - 1); }

}  // namespace

void shuffle(const char* op, unsigned mask, void* value, std::size_t bytes, int source, const Location& at) {
  Shuffle s{{}, value, bytes, source};
  std::memcpy(s.given, value, bytes);
  collective(op, mask, &s, finish_shuffle, at);
}

Vote vote(const char* op, unsigned mask, int predicate, const Location& at) {
  Vote v{0, predicate != 0};
  collective(op, mask, &v, finish_vote, at);
  return v;
}

int shuffle_index(int lane, int width) { return segment(width) + (lane & (width - 1)); }

int shuffle_up(unsigned delta, int width) {
  const int source = static_cast<int>(lane_id()) - static_cast<int>(delta);
  return source < segment(width) ? -1 : source;
}

int shuffle_down(unsigned delta, int width) {
  const int source = static_cast<int>(lane_id() + delta);
  return source >= segment(width) + width ? -1 : source;
}

// A lane may read from an earlier segment but not from a later one.
int shuffle_xor(int bits, int width) {
  const int source = static_cast<int>(lane_id()) ^ bits;
  return source >= segment(width) + width ? -1 : source;
}

}  // namespace cald::emulation
