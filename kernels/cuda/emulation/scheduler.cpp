// The fiber scheduler. This file is compiled without sanitizers; AddressSanitizer is told of every switch.
#include "kernels/cuda/emulation/scheduler.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <deque>
#include <memory>
#include <numeric>
#include <random>

#include "engine/base/error.h"
#include "kernels/cuda/emulation/context.h"
#include "kernels/cuda/emulation/fault.h"
#include "kernels/cuda/emulation/memory.h"
#include "kernels/cuda/emulation/observer.h"
#include "kernels/cuda/emulation/place.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

// Present only where AddressSanitizer is linked.
extern "C" [[gnu::weak]] void __sanitizer_start_switch_fiber(void**, const void*, std::size_t);
extern "C" [[gnu::weak]] void __sanitizer_finish_switch_fiber(void*, const void**, std::size_t*);
extern "C" [[gnu::weak]] void __asan_unpoison_memory_region(void const volatile*, std::size_t);

namespace cald::emulation {
namespace {

constexpr std::size_t kStack = 256 << 10;
constexpr std::size_t kStackGuard = 4096;
constexpr unsigned kMaxThreads = 1024;
constexpr unsigned kWarp = 32;

/// Something that runs on its own stack: a CUDA thread, or the host's code.
struct Fiber {
  Context context;
  const void* stack = nullptr;
  std::size_t stack_bytes = 0;
  void* fake_stack = nullptr;  // AddressSanitizer's
};

struct Thread : Fiber {
  uint3 index;
  unsigned linear, lane;
  bool done;
  const char* waits_in;  // null while it can run
  Location waits_at;
  AsyncCopies copies;
};

/// A warp's collective that some lanes have reached; mask 0: free.
struct Meeting {
  unsigned mask = 0, arrived = 0;
  const char* op = nullptr;
  Location at;
  Finish finish = nullptr;
  void* args[kWarp] = {};
};

struct Warp {
  unsigned exist = 0, exited = 0;
  std::vector<Meeting> meetings;  // several while lanes wait under different masks
};

struct Barrier {
  const char* op = nullptr;  // null: nobody waits
  Location at;
  std::vector<unsigned> waiting;
  int chosen = 0;
  Arrivals last = {};
};

std::uint64_t initial_seed() {
  const char* text = std::getenv("CALD_EMULATION_SEED");
  return text ? std::strtoull(text, nullptr, 10) : 0;
}

class Scheduler {
 public:
  std::uint64_t seed = initial_seed();
  Thread* current = nullptr;

  void run(const Grid& grid, const std::function<void()>& body);
  [[noreturn]] void fail(std::string&& where, std::string&& what);
  Arrivals barrier(const char* op, int predicate, const Location& at);
  void collective(const char* op, unsigned mask, void* arg, Finish finish, const Location& at);
  Warp& warp() { return warps_[current->linear / kWarp]; }
  bool coin() { return random_() & 1; }

 private:
  static void entry();
  void make_stacks();
  void run_block(const std::function<void()>& body);
  void thread_ends();
  void suspend();
  void switch_to(Fiber& from, Fiber& to, bool for_good = false);
  void release(std::vector<unsigned>& threads, bool at_once);
  bool warp_major() const { return seed % 3 != 1; }
  template <class T>
  void order(std::vector<T>& items);
  void release_barrier_if_complete();
  void finish_if_complete(Meeting& meeting, unsigned first);
  [[noreturn]] void report_deadlock();

  Fiber host_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::deque<unsigned> ready_;
  std::vector<unsigned> released_;  // kept for its memory
  Barrier barrier_;
  unsigned live_ = 0;
  const std::function<void()>* body_ = nullptr;
  char* stacks_ = nullptr;
  bool stacks_dirty_ = false;
  std::string failure_;
  std::mt19937_64 random_;
};

Scheduler scheduler;

void Scheduler::make_stacks() {
  const std::size_t bytes = kMaxThreads * (kStack + kStackGuard);
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw Error("CUDA emulation: cannot map the threads' stacks");
  stacks_ = static_cast<char*>(p);
  for (unsigned i = 0; i < kMaxThreads; ++i) mprotect(stacks_ + i * (kStack + kStackGuard), kStackGuard, PROT_NONE);

  pthread_attr_t attributes;
  pthread_getattr_np(pthread_self(), &attributes);
  void* host_stack = nullptr;
  pthread_attr_getstack(&attributes, &host_stack, &host_.stack_bytes);
  pthread_attr_destroy(&attributes);
  host_.stack = host_stack;
}

template <class T>
void Scheduler::order(std::vector<T>& items) {
  std::sort(items.begin(), items.end());
  if (seed == 1) std::reverse(items.begin(), items.end());
  if (seed >= 2) std::shuffle(items.begin(), items.end(), random_);
}

void Scheduler::run(const Grid& grid, const std::function<void()>& body) {
  if (!stacks_) make_stacks();
  catch_faults();
  random_.seed(seed);
  blockDim = grid.threads;
  gridDim = grid.blocks;
  threads_.resize(grid.threads.x * grid.threads.y * grid.threads.z);
  shared_memory::begin_launch(grid.dynamic_shared);
  if (observer) observer->launch_begins(grid);
  std::vector<std::uint64_t> blocks(std::uint64_t{grid.blocks.x} * grid.blocks.y * grid.blocks.z);
  std::iota(blocks.begin(), blocks.end(), 0);
  order(blocks);
  for (std::uint64_t b : blocks) {
    blockIdx.x = static_cast<unsigned>(b % grid.blocks.x);
    blockIdx.y = static_cast<unsigned>(b / grid.blocks.x % grid.blocks.y);
    blockIdx.z = static_cast<unsigned>(b / grid.blocks.x / grid.blocks.y);
    run_block(body);
  }
}

void Scheduler::run_block(const std::function<void()>& body) {
  body_ = &body;
  failure_.clear();
  barrier_ = {};
  ready_.clear();
  live_ = static_cast<unsigned>(threads_.size());
  warps_.resize((threads_.size() + kWarp - 1) / kWarp);
  for (Warp& w : warps_) {
    w.exist = w.exited = 0;
    for (Meeting& m : w.meetings) m.mask = 0;
  }
  shared_memory::begin_block();
  if (observer) observer->block_begins();
  std::vector<unsigned> all;
  for (unsigned i = 0; i < threads_.size(); ++i) {
    Thread& t = threads_[i];
    char* stack = stacks_ + i * (kStack + kStackGuard) + kStackGuard;
    if (stacks_dirty_ && __asan_unpoison_memory_region) __asan_unpoison_memory_region(stack, kStack);
    t.stack = stack;
    t.stack_bytes = kStack;
    t.fake_stack = nullptr;
    t.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
    t.linear = i;
    t.lane = i % kWarp;
    t.done = false;
    t.waits_in = nullptr;
    t.copies.pending.clear();
    t.copies.group = 0;
    t.context.start(stack, kStack, &Scheduler::entry);
    warps_[i / kWarp].exist |= 1u << t.lane;
    all.push_back(i);
  }
  stacks_dirty_ = false;
  release(all, false);
  Thread& first = threads_[ready_.front()];
  ready_.pop_front();
  switch_to(host_, first);

  // Back on the host's stack: all are done, one has failed, or nobody can run.
  if (failure_.empty() && live_ == 0) {
    if (observer) observer->block_ends();
    return;
  }
  stacks_dirty_ = true;  // the stacks of the threads left behind keep AddressSanitizer's marks
  if (failure_.empty()) report_deadlock();
  throw Error(failure_);
}

void Scheduler::entry() {
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
  Scheduler& s = scheduler;
  (*s.body_)();
  s.thread_ends();
}

void Scheduler::switch_to(Fiber& from, Fiber& to, bool for_good) {
  if (&to == &host_) {
    current = nullptr;
  } else {
    current = static_cast<Thread*>(&to);
    current->waits_in = nullptr;
    threadIdx = current->index;
  }
  if (__sanitizer_start_switch_fiber)
    __sanitizer_start_switch_fiber(for_good ? nullptr : &from.fake_stack, to.stack, to.stack_bytes);
  Context::swap(from.context, to.context);
  if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
}

/// The running thread cannot go on, or lets others go first.
void Scheduler::suspend() {
  Thread& me = *current;
  if (ready_.empty()) {
    switch_to(me, host_, me.done);
    return;
  }
  Thread& next = threads_[ready_.front()];
  ready_.pop_front();
  if (&next == &me)
    me.waits_in = nullptr;
  else
    switch_to(me, next, me.done);
}

/// Puts threads that can go on into the queue, in the schedule's order; `at_once`: before all others. One in three
/// random schedules mixes lanes freely, the others let whole warps run ahead, which finds more missing barriers.
void Scheduler::release(std::vector<unsigned>& threads, bool at_once) {
  order(threads);
  if (seed >= 2 && warp_major() && !at_once) {
    std::vector<unsigned> rank(warps_.size());
    std::iota(rank.begin(), rank.end(), 0);
    std::shuffle(rank.begin(), rank.end(), random_);
    std::stable_sort(threads.begin(), threads.end(),
                     [&](unsigned a, unsigned b) { return rank[a / kWarp] < rank[b / kWarp]; });
  }
  if (seed >= 2 && !warp_major()) at_once = at_once && coin();
  ready_.insert(at_once ? ready_.begin() : ready_.end(), threads.begin(), threads.end());
}

void Scheduler::fail(std::string&& at, std::string&& what) {
  {
    const std::string place = std::move(at), text = std::move(what);
    failure_ = place + ": " + text + ", block " + triple(blockIdx) + " thread " + triple(current->index);
  }
  switch_to(*current, host_);
  std::abort();  // nobody switches back to a failed thread
}

Arrivals Scheduler::barrier(const char* op, int predicate, const Location& at) {
  Thread& me = *current;
  Barrier& b = barrier_;
  if (b.op && !same_place(op, at, b.op, b.at)) fail(where(at), divergence("barrier", op, b.waiting.size(), b.op, b.at));
  b.op = me.waits_in = op;
  b.at = me.waits_at = at;
  b.chosen += predicate != 0;
  b.waiting.push_back(me.linear);
  release_barrier_if_complete();
  suspend();
  return b.last;
}

void Scheduler::release_barrier_if_complete() {
  Barrier& b = barrier_;
  if (!b.op || b.waiting.size() < live_) return;
  b.last = {static_cast<int>(b.waiting.size()), b.chosen};
  b.op = nullptr;
  b.chosen = 0;
  if (observer) observer->barrier();
  release(b.waiting, false);
  b.waiting.clear();
}

void Scheduler::collective(const char* op, unsigned mask, void* arg, Finish finish, const Location& at) {
  Thread& me = *current;
  Warp& w = warp();
  if (!(mask >> me.lane & 1)) fail(where(at), std::string(op) + ": the calling lane is not in its own mask");
  auto meeting = std::find_if(w.meetings.begin(), w.meetings.end(), [&](const Meeting& m) { return m.mask == mask; });
  if (meeting == w.meetings.end()) {
    meeting = std::find_if(w.meetings.begin(), w.meetings.end(), [](const Meeting& m) { return !m.mask; });
    if (meeting == w.meetings.end()) meeting = w.meetings.insert(meeting, Meeting{});
    *meeting = {mask, 0, op, at, finish, {}};
  }
  if (!same_place(op, at, meeting->op, meeting->at))
    fail(where(at), divergence("warp", op, std::popcount(meeting->arrived), meeting->op, meeting->at));
  meeting->arrived |= 1u << me.lane;
  meeting->args[me.lane] = arg;
  me.waits_in = op;
  me.waits_at = at;
  finish_if_complete(*meeting, me.linear - me.lane);
  suspend();
}

void Scheduler::finish_if_complete(Meeting& m, unsigned first) {
  const Warp& w = warps_[first / kWarp];
  if (!m.mask || (m.mask & w.exist & ~w.exited & ~m.arrived)) return;
  if (m.finish) m.finish(m.args, m.arrived, m.at);
  if (observer) observer->warp_met(first, m.arrived);
  m.mask = 0;
  released_.clear();
  for (unsigned lane = 0; lane < kWarp; ++lane)
    if (m.arrived >> lane & 1) released_.push_back(first + lane);
  release(released_, true);
}

void Scheduler::thread_ends() {
  Thread& me = *current;
  if (!me.copies.pending.empty())
    fail(where(me.copies.pending.front().at), "cp.async: the thread ends without having waited for this copy");
  me.done = true;
  --live_;
  Warp& w = warp();
  w.exited |= 1u << me.lane;
  for (Meeting& m : w.meetings) finish_if_complete(m, me.linear - me.lane);
  release_barrier_if_complete();
  suspend();
  std::abort();
}

/// Nobody can run: says how many threads wait where, and which have ended.
void Scheduler::report_deadlock() {
  std::vector<std::pair<std::string, int>> places;
  for (const Thread& t : threads_) {
    if (t.done) continue;
    const std::string place = where(t.waits_at) + " in " + t.waits_in;
    auto same = std::find_if(places.begin(), places.end(), [&](const auto& p) { return p.first == place; });
    if (same == places.end()) same = places.insert(same, {place, 0});
    ++same->second;
  }
  std::string text;
  for (const auto& [place, count] : places)
    text += (text.empty() ? "" : "; ") + std::to_string(count) + " threads wait at " + place;
  throw Error("deadlock in block " + triple(blockIdx) + ": " + text + "; " + std::to_string(threads_.size() - live_) +
              " threads have ended");
}

}  // namespace

std::uint64_t schedule_seed() { return scheduler.seed; }
void set_schedule_seed(std::uint64_t seed) { scheduler.seed = seed; }
void run_grid(const Grid& grid, const std::function<void()>& body) { scheduler.run(grid, body); }
void fail(const Location& at, std::string&& what) { scheduler.fail(where(at), std::move(what)); }
void fail(std::string&& at, std::string&& what) { scheduler.fail(std::move(at), std::move(what)); }
bool in_kernel() { return scheduler.current != nullptr; }
Arrivals block_barrier(const char* op, int predicate, const Location& at) {
  return scheduler.barrier(op, predicate, at);
}
void collective(const char* op, unsigned mask, void* arg, Finish finish, const Location& at) {
  scheduler.collective(op, mask, arg, finish, at);
}
unsigned lane_id() { return scheduler.current->lane; }
unsigned live_lanes() { return scheduler.warp().exist & ~scheduler.warp().exited; }
bool lands_late() { return schedule_seed() == 0 || (schedule_seed() > 1 && scheduler.coin()); }
AsyncCopies& async_copies() { return scheduler.current->copies; }

void note_access(const void* p, std::size_t bytes, Access kind, const void* pc) {
  if (observer && in_kernel()) observer->access(scheduler.current->linear, p, bytes, kind, pc);
}

void note_fence() {
  if (observer && in_kernel()) observer->fence(scheduler.current->linear);
}

void note_atomic(const void* p, std::size_t bytes) {
  note_access(p, bytes, Access::atomic, __builtin_return_address(0));
}

}  // namespace cald::emulation
