// The host's side: memory, lazy streams, events, graphs.
#include <cuda_profiler_api.h>

#include <cmath>

#include "tests/emulation/kernels.cuh"
#include "tests/emulation/support.h"

namespace cald::test {
namespace {

struct Stream {
  cudaStream_t get = nullptr;
  Stream() { check(cudaStreamCreateWithFlags(&get, cudaStreamNonBlocking)); }
  ~Stream() { cudaStreamDestroy(get); }
};

struct Event {
  cudaEvent_t get = nullptr;
  Event() { check(cudaEventCreate(&get)); }
  ~Event() { cudaEventDestroy(get); }
};

constexpr int kCount = 100;

struct Pair {
  Buffer<float> x{std::vector<float>(kCount, 1)}, y{std::vector<float>(kCount, 0)};
  cudaError_t add(const Stream& s, float a = 1) {
    return cuda::launch(axpy, {dim3(2), dim3(64), 0, s.get}, a, x.get(), y.get(), kCount);
  }
  float first() { return y.read()[0]; }
};

TEST(Runtime, CopiesCheckTheirDirectionAndBounds) {
  Buffer<float> device(8);
  std::vector<float> host(8);
  EXPECT_EQ(cudaMemcpy(device.get(), host.data(), 32, cudaMemcpyDeviceToHost), cudaErrorInvalidMemcpyDirection);
  EXPECT_EQ(cudaMemcpy(device.get(), host.data(), 36, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemset(device.get() + 1, 0, 32), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFree(device.get() + 1), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  check(cudaMemset(device.get(), 0, 32));
  EXPECT_EQ(device.read(), std::vector<float>(8, 0));
}

TEST(Runtime, CopiesOfRowsAtAPitch) {
  std::vector<float> host = {1, 2, 3, 4, 5, 6};
  Buffer<float> device(std::vector<float>(8, 0));
  check(cudaMemcpy2D(device.get(), 16, host.data(), 12, 12, 2, cudaMemcpyHostToDevice));
  EXPECT_EQ(device.read(), (std::vector<float>{1, 2, 3, 0, 4, 5, 6, 0}));
}

TEST(Runtime, MemoryIsReportedAndReused) {
  std::size_t before, during, total;
  check(cudaMemGetInfo(&before, &total));
  void *p, *q;
  check(cudaMalloc(&p, 1000));
  check(cudaMemGetInfo(&during, &total));
  EXPECT_LT(during, before);
  check(cudaFree(p));
  check(cudaMalloc(&q, 1000));
  EXPECT_EQ(p, q);
  check(cudaFree(q));
  EXPECT_EQ(cudaMalloc(&p, std::size_t{1} << 50), cudaErrorMemoryAllocation);
  cudaGetLastError();
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0));
  EXPECT_EQ(properties.major, 9);
  check(cudaProfilerStart());
  check(cudaProfilerStop());
}

TEST(Runtime, WorkWaitsForASynchronisation) {
  Pair p;
  Stream s;
  check(p.add(s));
  EXPECT_EQ(p.first(), 0);  // the copy is not ordered after another stream's kernel
  check(cudaStreamSynchronize(s.get));
  EXPECT_EQ(p.first(), 1);
}

TEST(Runtime, PinnedSourcesAreReadLateAndPageableOnesAtOnce) {
  Buffer<float> device(2);
  Stream s;
  float* pinned = nullptr;
  check(cudaHostAlloc(reinterpret_cast<void**>(&pinned), sizeof(float), cudaHostAllocDefault));
  float pageable = 1;
  *pinned = 1;
  check(cudaMemcpyAsync(device.get(), &pageable, 4, cudaMemcpyHostToDevice, s.get));
  check(cudaMemcpyAsync(device.get() + 1, pinned, 4, cudaMemcpyHostToDevice, s.get));
  pageable = *pinned = 2;
  check(cudaStreamSynchronize(s.get));
  EXPECT_EQ(device.read(), (std::vector<float>{1, 2}));
  check(cudaFreeHost(pinned));
}

TEST(Runtime, EventsOrderStreams) {
  with_every_schedule([] {
    Pair p;
    Stream first, second;
    Event ready, end;
    check(p.add(first, 3));
    check(cudaEventRecord(ready.get, first.get));
    check(cudaStreamWaitEvent(second.get, ready.get, 0));
    check(cuda::launch(affine, {dim3(1), dim3(24), 0, second.get}, p.y.get(), Affine{10, 1}, kCount));
    check(cudaEventRecord(end.get, second.get));
    check(cudaEventSynchronize(end.get));
    EXPECT_EQ(p.first(), 31);
    float ms = -1;
    check(cudaEventElapsedTime(&ms, ready.get, end.get));
    EXPECT_GE(ms, 0);
  });
}

TEST(Runtime, PollingAnEventEnds) {
  Pair p;
  Stream s;
  Event e;
  check(p.add(s));
  check(cudaEventRecord(e.get, s.get));
  EXPECT_EQ(cudaEventQuery(e.get), cudaErrorNotReady);
  while (cudaEventQuery(e.get) == cudaErrorNotReady) {
  }
  EXPECT_EQ(p.first(), 1);
}

TEST(Runtime, GraphsReplayWhatWasCaptured) {
  Pair p;
  Stream s, other;
  Event fork, join;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  check(cudaStreamBeginCapture(s.get, cudaStreamCaptureModeThreadLocal));
  check(p.add(s, 2));
  check(cudaEventRecord(fork.get, s.get));
  check(cudaStreamWaitEvent(other.get, fork.get, 0));
  check(cuda::launch(affine, {dim3(1), dim3(24), 0, other.get}, p.y.get(), Affine{10, 0}, kCount));
  EXPECT_EQ(cudaStreamSynchronize(s.get), cudaErrorStreamCaptureUnsupported);
  cudaGetLastError();
  check(cudaEventRecord(join.get, other.get));
  check(cudaStreamWaitEvent(s.get, join.get, 0));
  check(cudaStreamEndCapture(s.get, &graph));
  check(cudaGraphInstantiate(&executable, graph, 0));
  check(cudaGraphDestroy(graph));
  check(cudaDeviceSynchronize());
  EXPECT_EQ(p.first(), 0);
  for (int i = 0; i < 2; ++i) check(cudaGraphLaunch(executable, s.get));
  check(cudaStreamSynchronize(s.get));
  EXPECT_EQ(p.first(), 220);
  check(cudaGraphExecDestroy(executable));
}

/// What `work` gives to the stream, as a graph.
template <class Work>
cudaGraph_t captured(cudaStream_t stream, const Work& work) {
  cudaGraph_t graph = nullptr;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  work();
  check(cudaStreamEndCapture(stream, &graph));
  return graph;
}

TEST(Runtime, GraphsTakeNewArgumentsForTheSameKernels) {
  Pair p;
  Stream s;
  cudaGraph_t three = captured(s.get, [&] { check(p.add(s, 3)); });
  cudaGraph_t five = captured(s.get, [&] { check(p.add(s, 5)); });
  cudaGraph_t twice = captured(s.get, [&] {
    check(p.add(s, 1));
    check(p.add(s, 1));
  });
  cudaGraphExec_t executable;
  check(cudaGraphInstantiate(&executable, three, 0));
  check(cudaGraphLaunch(executable, s.get));
  cudaGraphExecUpdateResultInfo result;
  check(cudaGraphExecUpdate(executable, five, &result));
  check(cudaGraphLaunch(executable, s.get));  // the launch before keeps what it was given
  EXPECT_EQ(cudaGraphExecUpdate(executable, twice, &result), cudaErrorGraphExecUpdateFailure);
  EXPECT_EQ(result.result, cudaGraphExecUpdateErrorTopologyChanged);
  cudaGetLastError();
  check(cudaStreamSynchronize(s.get));
  EXPECT_EQ(p.first(), 8);
  for (cudaGraph_t graph : {three, five, twice}) check(cudaGraphDestroy(graph));
  check(cudaGraphExecDestroy(executable));
}

TEST(Runtime, GraphsMayNotCopyWhatIsNotPinned) {
  Stream s;
  void* device = nullptr;
  check(cudaMalloc(&device, 4));
  int host = 0;
  cudaGraph_t graph = captured(s.get, [&] {
    EXPECT_EQ(cudaMemcpyAsync(device, &host, 4, cudaMemcpyHostToDevice, s.get), cudaErrorStreamCaptureUnsupported);
    EXPECT_EQ(cudaMemcpyAsync(&host, device, 4, cudaMemcpyDeviceToHost, s.get), cudaErrorStreamCaptureUnsupported);
    cudaGetLastError();
  });
  check(cudaGraphDestroy(graph));
  check(cudaFree(device));
}

}  // namespace
}  // namespace cald::test
