// Memory for launches that are timed one after another.
#pragma once
#include <map>
#include <memory>

#include "engine/storage.h"

namespace cald {

/// Blocks that were given back serve again where as many bytes are asked for, so that a launch which is repeated takes
/// its scratch memory without asking the device: cudaFree waits for all that is under way.
class KeptMemory : public Allocator {
 public:
  explicit KeptMemory(Device device) : Allocator(device), heap_(device) {}
  std::shared_ptr<Storage> allocate(std::size_t bytes, MemClass cls, const char* op) override {
    const auto kept = free_.find(bytes);
    const std::shared_ptr<Storage> block = kept != free_.end() ? kept->second : heap_.allocate(bytes, cls, op);
    if (kept != free_.end()) free_.erase(kept);
    taken_[block->data] = block;
    return std::make_shared<Storage>(this, block->data, bytes, block->id, cls);
  }

 private:
  void release(Storage& s) noexcept override {
    const auto block = taken_.find(s.data);
    free_.emplace(s.bytes, std::move(block->second));
    taken_.erase(block);
  }

  HeapAllocator heap_;  // outlives the blocks
  std::map<void*, std::shared_ptr<Storage>> taken_;
  std::multimap<std::size_t, std::shared_ptr<Storage>> free_;
};

}  // namespace cald
