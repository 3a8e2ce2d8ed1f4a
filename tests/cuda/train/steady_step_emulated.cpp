// What the host does in a step: graphs to launch, one wait, no memory.
#include "kernels/cuda/emulation/stream.h"
#include "tests/train/golden_run.h"

namespace cald {
namespace {

using emulation::host_calls;
using emulation::HostCalls;

class SteadyStep : public ::testing::Test {
 protected:
  /// The golden run `name` on CUDA, planned.
  void open(const char* name, std::int64_t micro_batches = 1) {
    options_ = golden_options(read_golden(name), "");
    options_.device = DeviceOption::cuda;
    options_.micro_batches = micro_batches;
    options_.dropout = 0.1;
    trainer_.emplace(options_, heap_, progress_);
    trainer_->plan();
  }

  HostCalls calls_of(std::int64_t step) {
    const HostCalls before = host_calls();
    losses_.push_back(trainer_->step(step).total);
    const HostCalls& after = host_calls();
    return {after.waits - before.waits, after.works - before.works, after.graphs - before.graphs,
            after.updates - before.updates, after.blocks - before.blocks};
  }

  RunOptions options_;
  HeapAllocator heap_{Device::cuda};
  Progress progress_ = quiet();
  std::optional<Trainer> trainer_;
  std::vector<double> losses_;
};

TEST_F(SteadyStep, IsGraphsWithOneWait) {
  open("bert_target");
  HostCalls calls;
  std::int64_t graphs = 0, updates = 0;
  for (std::int64_t step = 0; step < 20; ++step) {
    calls = calls_of(step);
    EXPECT_LE(calls.waits, 2) << "step " << step;  // a second one where a graph of another topology is replaced
    graphs += calls.graphs;
    updates += calls.updates;
  }
  EXPECT_EQ(calls.waits, 1);
  EXPECT_EQ(calls.graphs, 3);  // forward, backward, update
  EXPECT_EQ(calls.works, calls.graphs);
  EXPECT_EQ(calls.blocks, 0);
  EXPECT_GE(graphs, 30);
  EXPECT_GE(updates, 20);
}

TEST_F(SteadyStep, WaitsOnceForEachMicroBatch) {
  open("bert_target", 2);
  HostCalls calls;
  for (std::int64_t step = 0; step < 20; ++step) calls = calls_of(step);
  EXPECT_EQ(calls.waits, 2);
  EXPECT_EQ(calls.graphs, 5);
  EXPECT_EQ(calls.works, calls.graphs);
  EXPECT_EQ(calls.blocks, 0);
}

TEST_F(SteadyStep, ErrorsNameOpKernelAndCause) {
  open("bert_target");
  calls_of(0);
  emulation::set_error(cudaErrorLaunchFailure);
  try {
    calls_of(1);
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "embedding in teacher/embeddings: embedding: CUDA: cudaErrorLaunchFailure");
  }
  cudaGetLastError();
}

TEST_F(SteadyStep, ProfiledStepsAreNoGraphsAndComputeTheSame) {
  open("bert_target");
  for (std::int64_t step = 0; step < 12; ++step) calls_of(step);
  const std::vector<double> plain = losses_;
  losses_.clear();
  open("bert_target");
  trainer_->profile({10, 11});
  for (std::int64_t step = 0; step < 12; ++step) {
    const HostCalls calls = calls_of(step);
    if (step == 9 || step == 10) {
      EXPECT_EQ(calls.graphs, 0);
      EXPECT_GT(calls.works, 100);
    } else if (step == 11) {
      EXPECT_GT(calls.graphs, 0);
    }
  }
  EXPECT_EQ(losses_, plain);
}

}  // namespace
}  // namespace cald
