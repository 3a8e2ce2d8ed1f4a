#include "engine/storage.h"

#include <algorithm>
#include <string>

#include "engine/base/error.h"
#include "engine/planner.h"
#include "kernels/device.h"

namespace cald {

const char* name_of(MemClass c) {
  static constexpr const char* kNames[kMemClasses] = {"weights",   "teacher",     "gradients",
                                                      "optimizer", "activations", "workspace"};
  return kNames[static_cast<std::size_t>(c)];
}

Storage::~Storage() {
  if (owner) owner->release(*this);
}

Device Storage::device() const { return owner ? owner->device() : Device::cpu; }

std::shared_ptr<Storage> HeapAllocator::allocate(std::size_t bytes, MemClass cls, const char* op) {
  void* p = functions_of(device()).allocate(bytes ? bytes : 1);
  if (p == nullptr)
    throw Error(std::string(op) + ": no memory for " + std::to_string(bytes) + " bytes of " + name_of(cls));
  ++allocations_;
  live_bytes_ += bytes;
  by_class_[static_cast<std::size_t>(cls)] += bytes;
  live_by_class_[static_cast<std::size_t>(cls)] += bytes;
  return std::make_shared<Storage>(this, p, bytes, static_cast<std::int32_t>(allocations_), cls);
}

void HeapAllocator::release(Storage& s) noexcept {
  live_bytes_ -= s.bytes;
  live_by_class_[static_cast<std::size_t>(s.cls)] -= s.bytes;
  functions_of(device()).release(s.data);
}

std::shared_ptr<Storage> RecordingAllocator::allocate(std::size_t bytes, MemClass cls, const char* op) {
  events_.push_back({next_, true, cls, bytes, op});
  return std::make_shared<Storage>(this, nullptr, bytes, next_++, cls);
}

void RecordingAllocator::release(Storage& s) noexcept {
  events_.push_back({s.id, false, MemClass::activations, s.bytes, ""});  // of a return only the id counts
}

std::shared_ptr<Storage> PlannedAllocator::allocate(std::size_t bytes, MemClass cls, const char* op) {
  if (departed_) depart(op, "a block was given back out of order before it");
  if (next_event_ == plan_->events.size()) depart(op, "the plan is at its end");
  const MemoryEvent& e = plan_->events[next_event_];
  if (!e.take) depart(op, "the plan gives a block back here");
  if (e.bytes != bytes) depart(op, "asked for " + std::to_string(bytes) + " bytes, planned " + std::to_string(e.bytes));
  ++next_event_;
  const std::size_t offset = plan_->offsets[static_cast<std::size_t>(e.id)];
  peak_ = std::max(peak_, offset + planned_size(bytes));
  return std::make_shared<Storage>(this, arena_ + offset, bytes, e.id, cls);
}

void PlannedAllocator::release(Storage& s) noexcept {
  // A destructor cannot throw: the departure is reported by the next allocation or by finish().
  if (next_event_ < plan_->events.size() && !plan_->events[next_event_].take && plan_->events[next_event_].id == s.id)
    ++next_event_;
  else
    departed_ = true;
}

void PlannedAllocator::finish() const {
  if (departed_) depart("end of step", "a block was given back out of order");
  if (next_event_ != plan_->events.size()) depart("end of step", "the step is over before its plan");
}

void PlannedAllocator::depart(const char* op, const std::string& what) const {
  throw Error("memory plan: the step departs from its plan at event " + std::to_string(next_event_) + " (" + op +
              "): " + what);
}

}  // namespace cald
