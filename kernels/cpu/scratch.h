// Cuts a launch's scratch memory into pieces. The same code lays out and measures, so that the two cannot differ.
#pragma once
#include <cstddef>

namespace cald {

/// Hands out pieces aligned to cache lines (the memory itself is); without memory it only measures.
class Scratch {
 public:
  static constexpr std::size_t kLine = 64;

  explicit Scratch(void* memory) : memory_(static_cast<std::byte*>(memory)) {}
  template <class T = float>
  T* take(std::ptrdiff_t n) {
    const std::size_t at = used_;
    used_ += (static_cast<std::size_t>(n) * sizeof(T) + kLine - 1) / kLine * kLine;
    return memory_ ? reinterpret_cast<T*>(memory_ + at) : nullptr;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* memory_;
  std::size_t used_ = 0;
};

}  // namespace cald
