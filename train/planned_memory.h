// One arena for everything that lives within a step, with a plan for every kind of step and batch shape.
#pragma once
#include <map>
#include <string>

#include "engine/context.h"
#include "engine/planner.h"

namespace cald {

/// More would only cost memory, and at some thousands the system gives none.
constexpr std::int64_t kMostThreads = 1024;

/// The device, to be opened, with `threads` threads on the CPU; 0: as many as the machine has. The others: see Exec.
Exec exec_on(Device device, std::int64_t threads, DType compute = DType::f32, bool tf32 = false);

/// What distinguishes two plans: the kind of step and the batch's shape.
struct PlanKey {
  std::string phase;
  std::int64_t batch, seq;
  bool operator<(const PlanKey& o) const { return std::tie(phase, batch, seq) < std::tie(o.phase, o.batch, o.seq); }
};

/// Every body runs twice under the same key: once shape-only, which records what memory it takes when, and then for
/// real at the planned offsets. Which memory a body takes must not depend on values.
class PlannedMemory {
 public:
  PlannedMemory(Exec exec, Allocator& heap) : exec_(exec), heap_(heap) {}

  const Exec& exec() const { return exec_; }
  void observe(LaunchObserver* observer) { observer_ = observer; }
  LaunchObserver* observer() const { return observer_; }
  /// Whether pieces of a body go to the device as graphs, where it has them; so it is unless told otherwise.
  void use_graphs(bool on) { graphs_ = on; }

  /// Records body(Context&) on the meta device and plans it, unless the key is known. The largest batch of a phase is
  /// to be planned first: shorter ones then share its offsets where they can, and need no more than it.
  template <class Body>
  const MemoryPlan& plan(const PlanKey& key, Body&& body) {
    const auto it = plans_.find(key);
    if (it != plans_.end()) return it->second;
    RecordingAllocator recording;
    Context context(exec_, recording, true);
    body(context);
    return add(key, recording.events());
  }

  /// Runs body(Context&) in the arena. Error if the key was not planned; an arena that has become too small is
  /// replaced.
  template <class Body>
  void run(const PlanKey& key, Body&& body) {
    PlannedAllocator memory(planned(key), arena(), heap_.device());
    Context context(exec_, memory);
    context.observe(observer_);
    if (graphs_) context.use_graphs(key.phase, std::to_string(key.batch) + " x " + std::to_string(key.seq));
    body(context);
    memory.finish();
    measured_peak_ = std::max(measured_peak_, memory.measured_peak());
  }

  /// Bytes of the arena: what the largest of the plans needs.
  std::size_t bytes() const { return bytes_; }
  /// The plan that needs the most.
  const MemoryPlan* largest() const { return largest_; }
  const PlanKey* largest_key() const { return largest_key_; }
  std::size_t measured_peak() const { return measured_peak_; }
  const std::map<PlanKey, MemoryPlan>& plans() const { return plans_; }

 private:
  const MemoryPlan& add(const PlanKey& key, const std::vector<MemoryEvent>& events);
  const MemoryPlan& planned(const PlanKey& key) const;
  void* arena();

  Exec exec_;
  Allocator& heap_;
  LaunchObserver* observer_ = nullptr;
  bool graphs_ = true;
  std::map<PlanKey, MemoryPlan> plans_;
  const MemoryPlan* largest_ = nullptr;
  const PlanKey* largest_key_ = nullptr;
  std::size_t bytes_ = 0, measured_peak_ = 0;
  std::shared_ptr<Storage> arena_;
};

}  // namespace cald
