// Storage and the allocators behind it. All tensor memory of the program comes from one of these allocators.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/exec.h"

namespace cald {

/// What a block of memory is for; the memory plan is printed by these classes.
enum class MemClass : std::uint8_t { weights, teacher, gradients, optimizer, activations, workspace };
inline constexpr int kMemClasses = 6;
const char* name_of(MemClass c);

class Allocator;

/// One block. Its lifetime ends with the last Tensor that views it, which tells the allocator.
struct Storage {
  Storage(Allocator* owner_, void* data_, std::size_t bytes_, std::int32_t id_, MemClass cls_)
      : owner(owner_), data(data_), bytes(bytes_), id(id_), cls(cls_) {}
  /// Memory that lies elsewhere, in a mapped file, and outlives the block.
  Storage(const void* data_, std::size_t bytes_)
      : Storage(nullptr, const_cast<void*>(data_), bytes_, 0, MemClass::weights) {}
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  ~Storage();

  /// Where the memory lies.
  Device device() const;

  Allocator* owner;   ///< null: the memory is borrowed
  void* data;         ///< null on the meta device
  std::size_t bytes;  ///< as asked for, not rounded
  std::int32_t id;    ///< number of the allocation at its allocator
  MemClass cls;
};

class Allocator {
 public:
  explicit Allocator(Device device) : device_(device) {}
  virtual ~Allocator() = default;
  /// Where its memory lies.
  Device device() const { return device_; }
  /// A block of at least `bytes` bytes, aligned to kAlignment; `op` names who asked, for the plan's report.
  virtual std::shared_ptr<Storage> allocate(std::size_t bytes, MemClass cls, const char* op) = 0;

  static constexpr std::size_t kAlignment = 64;

 private:
  friend struct Storage;
  virtual void release(Storage& s) noexcept = 0;
  Device device_;
};

/// Takes every block from the device's own heap: for memory that lives across steps, for the library used without a
/// plan, and for tests. It counts, so that a test can show that a planned step takes nothing from it.
class HeapAllocator : public Allocator {
 public:
  explicit HeapAllocator(Device device = Device::cpu) : Allocator(device) {}
  std::shared_ptr<Storage> allocate(std::size_t bytes, MemClass cls, const char* op) override;
  std::int64_t allocations() const { return allocations_; }
  std::size_t live_bytes() const { return live_bytes_; }
  /// Bytes ever handed out, by class, and those that are alive.
  std::size_t bytes_of(MemClass c) const { return by_class_[static_cast<std::size_t>(c)]; }
  std::size_t live_bytes_of(MemClass c) const { return live_by_class_[static_cast<std::size_t>(c)]; }

 private:
  void release(Storage& s) noexcept override;
  std::int64_t allocations_ = 0;
  std::size_t live_bytes_ = 0;
  std::size_t by_class_[kMemClasses] = {}, live_by_class_[kMemClasses] = {};
};

/// One event of a recorded run: block `id` is taken (`take`) or given back.
struct MemoryEvent {
  std::int32_t id;
  bool take;
  MemClass cls;
  std::size_t bytes;
  const char* op;
};

/// Hands out addresses that do not exist and writes down who asked when: the shape-only (meta) run.
class RecordingAllocator : public Allocator {
 public:
  RecordingAllocator() : Allocator(Device::meta) {}
  std::shared_ptr<Storage> allocate(std::size_t bytes, MemClass cls, const char* op) override;
  const std::vector<MemoryEvent>& events() const { return events_; }

 private:
  void release(Storage& s) noexcept override;
  std::vector<MemoryEvent> events_;
  std::int32_t next_ = 0;
};

struct MemoryPlan;

/// Replays a plan: the n-th block lies at the n-th planned offset of the arena. Any departure from the recorded
/// sequence of takes and returns is an Error at the next call, because the plan's overlaps rest on that sequence.
class PlannedAllocator : public Allocator {
 public:
  /// `arena`, memory of `device`, holds at least plan.bytes bytes and, like `plan`, outlives the allocator.
  PlannedAllocator(const MemoryPlan& plan, void* arena, Device device = Device::cpu)
      : Allocator(device), plan_(&plan), arena_(static_cast<std::byte*>(arena)) {}
  std::shared_ptr<Storage> allocate(std::size_t bytes, MemClass cls, const char* op) override;
  /// To be called when the step is over: every recorded event must have happened.
  void finish() const;
  /// The highest byte of the arena ever in use.
  std::size_t measured_peak() const { return peak_; }

 private:
  void release(Storage& s) noexcept override;
  [[noreturn]] void depart(const char* op, const std::string& what) const;

  const MemoryPlan* plan_;
  std::byte* arena_;
  std::size_t next_event_ = 0;
  std::size_t peak_ = 0;
  bool departed_ = false;
};

}  // namespace cald
