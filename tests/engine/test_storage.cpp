// The allocators: heap, recording, planned.
#include "engine/storage.h"

#include <gtest/gtest.h>

#include <optional>

#include "engine/base/error.h"
#include "engine/planner.h"

namespace cald {
namespace {

using Block = std::shared_ptr<Storage>;

TEST(HeapAllocator, CountsAndAligns) {
  HeapAllocator heap;
  Block a = heap.allocate(100, MemClass::weights, "a"), b = heap.allocate(0, MemClass::optimizer, "b");
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a->data) % Allocator::kAlignment, 0u);
  EXPECT_NE(b->data, nullptr);
  EXPECT_EQ(heap.allocations(), 2);
  EXPECT_EQ(heap.live_bytes(), 100u);
  a.reset();
  EXPECT_EQ(heap.live_bytes(), 0u);
  EXPECT_EQ(heap.bytes_of(MemClass::weights), 100u) << "what was handed out, not what is alive";
  EXPECT_EQ(heap.bytes_of(MemClass::optimizer), 0u);
}

TEST(HeapAllocator, NamesWhoAskedForTooMuch) {
  HeapAllocator heap;
  try {
    heap.allocate(std::size_t{1} << 60, MemClass::activations, "huge_op");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("huge_op: no memory for 1152921504606846976 bytes of activations"),
              std::string::npos)
        << e.what();
  }
}

TEST(RecordingAllocator, WritesDownTakesAndReturns) {
  RecordingAllocator recording;
  Block a = recording.allocate(10, MemClass::weights, "a"), b = recording.allocate(20, MemClass::workspace, "b");
  EXPECT_EQ(a->data, nullptr);
  a.reset();
  Block c = recording.allocate(5, MemClass::activations, "c");
  const auto& e = recording.events();
  ASSERT_EQ(e.size(), 4u);
  EXPECT_TRUE(e[0].take && e[1].take && !e[2].take && e[3].take);
  EXPECT_EQ(e[2].id, 0);
  EXPECT_EQ(e[3].id, 2);
  EXPECT_EQ(e[1].bytes, 20u);
  EXPECT_EQ(e[1].cls, MemClass::workspace);
}

/// Takes a and b, returns a, takes c: as `allocator` sees it. `wrong` changes one thing.
enum class Wrong { nothing, size, order, early_take, no_return, more };

void run_step(Allocator& allocator, Wrong wrong) {
  Block a = allocator.allocate(100, MemClass::activations, "first");
  Block b = allocator.allocate(wrong == Wrong::size ? 300 : 200, MemClass::activations, "second");
  if (wrong == Wrong::order) b.reset();
  if (wrong != Wrong::early_take && wrong != Wrong::no_return) a.reset();
  Block c = allocator.allocate(50, MemClass::workspace, "third");
  c.reset();
  b.reset();
  a.reset();
  if (wrong == Wrong::more) allocator.allocate(1, MemClass::workspace, "fourth");
}

class PlannedAllocatorTest : public testing::Test {
 protected:
  PlannedAllocatorTest() {
    RecordingAllocator recording;
    run_step(recording, Wrong::nothing);
    plan_ = plan_memory(recording.events());
    arena_ = heap_.allocate(plan_.bytes, MemClass::activations, "arena");
  }
  HeapAllocator heap_;
  MemoryPlan plan_;
  Block arena_;
};

TEST_F(PlannedAllocatorTest, ReplaysThePlanWithoutTheHeap) {
  const std::int64_t before = heap_.allocations();
  for (int step = 0; step < 3; ++step) {
    PlannedAllocator planned(plan_, arena_->data);
    run_step(planned, Wrong::nothing);
    planned.finish();
    EXPECT_EQ(planned.measured_peak(), plan_.bytes);
  }
  EXPECT_EQ(heap_.allocations(), before);
}

TEST_F(PlannedAllocatorTest, BlocksLieAtTheirOffsets) {
  PlannedAllocator planned(plan_, arena_->data);
  Block a = planned.allocate(100, MemClass::activations, "first"),
        b = planned.allocate(200, MemClass::activations, "s");
  EXPECT_EQ(static_cast<std::byte*>(a->data), static_cast<std::byte*>(arena_->data) + plan_.offsets[0]);
  EXPECT_EQ(static_cast<std::byte*>(b->data), static_cast<std::byte*>(arena_->data) + plan_.offsets[1]);
}

TEST_F(PlannedAllocatorTest, DeparturesAreReportedWithTheOp) {
  const struct {
    Wrong wrong;
    const char* message;
  } cases[] = {{Wrong::size, "(second): asked for 300 bytes, planned 200"},
               {Wrong::order, "(third): a block was given back out of order"},
               {Wrong::early_take, "(third): the plan gives a block back here"},
               {Wrong::more, "(fourth): the plan is at its end"}};
  for (const auto& c : cases) {
    PlannedAllocator planned(plan_, arena_->data);
    try {
      run_step(planned, c.wrong);
      FAIL() << c.message;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(c.message), std::string::npos) << e.what();
    }
  }
}

TEST_F(PlannedAllocatorTest, FinishNoticesWhatIsMissing) {
  PlannedAllocator planned(plan_, arena_->data);
  Block a = planned.allocate(100, MemClass::activations, "first");
  EXPECT_THROW(planned.finish(), Error);
  a.reset();  // out of order: the plan takes the second block first
  EXPECT_THROW(planned.finish(), Error);
}

}  // namespace
}  // namespace cald
