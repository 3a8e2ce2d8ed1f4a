// The part of the CUDA runtime's interface that deals with streams, events and graphs.
#include "kernels/cuda/emulation/stream.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <exception>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "kernels/cuda/emulation/scheduler.h"

using Clock = std::chrono::steady_clock;

struct CUstream_st {
  std::deque<cald::emulation::Work> queue;
  bool blocking = true;
  CUgraph_st* capture = nullptr;
};

struct CUevent_st {
  struct Record {
    bool done = false;
    Clock::time_point time;
  };
  std::shared_ptr<Record> record;  // the newest; null before the first
  CUstream_st* stream = nullptr;   // where it was recorded
  CUgraph_st* capture = nullptr;   // set when recorded while capturing
};

struct CUgraph_st {
  std::vector<cald::emulation::Work> works;
  std::vector<const void*> whats;
};

struct CUgraphExec_st {
  std::shared_ptr<const std::vector<cald::emulation::Work>> works;  // a launch that is under way keeps its own
  std::vector<const void*> whats;
};

namespace cald::emulation {
namespace {

struct State {
  CUstream_st null_stream;
  std::set<CUstream_st*> streams;  // created and not destroyed
  cudaError_t error = cudaSuccess;
  std::string failure;  // of the last kernel that failed
  std::mt19937_64 random{schedule_seed()};
};

State& state() {
  static State s;
  return s;
}

CUstream_st* resolve(cudaStream_t stream) {
  const bool null = !stream || stream == cudaStreamLegacy || stream == cudaStreamPerThread;
  return null ? &state().null_stream : stream;
}

void run(const Work& work) {
  try {
    work();
  } catch (const std::exception& e) {
    state().failure = e.what();
    set_error(cudaErrorLaunchFailure);
  }
}

void run_front(CUstream_st* s) {
  Work work = std::move(s->queue.front());
  s->queue.pop_front();
  run(work);
}

void drain(CUstream_st* s) {
  while (!s->queue.empty()) run_front(s);
}

/// Runs the event's stream until the record is reached; a record on another queue's way is reached recursively.
void reach(const std::shared_ptr<CUevent_st::Record>& record, CUstream_st* s) {
  while (record && !record->done && state().streams.count(s) && !s->queue.empty()) run_front(s);
}

}  // namespace

cudaError_t set_error(cudaError_t error) {
  if (error != cudaSuccess) state().error = error;
  return error;
}

HostCalls& host_calls() {
  static HostCalls calls;
  return calls;
}

bool is_captured(cudaStream_t stream) { return resolve(stream)->capture; }

bool is_any_captured() {
  return std::any_of(state().streams.begin(), state().streams.end(), [](const CUstream_st* s) { return s->capture; });
}

void enqueue(cudaStream_t stream, Work work, const void* what) {
  CUstream_st* s = resolve(stream);
  if (s->capture) {
    s->capture->works.push_back(std::move(work));
    s->capture->whats.push_back(what);
    return;
  }
  ++host_calls().works;
  if (s != &state().null_stream) {
    s->queue.push_back(std::move(work));
    return;
  }
  for (CUstream_st* other : state().streams)
    if (other->blocking) drain(other);
  run(work);
}

cudaError_t finish(cudaStream_t stream) {
  CUstream_st* s = resolve(stream);
  if (s->capture) return set_error(cudaErrorStreamCaptureUnsupported);
  ++host_calls().waits;
  if (s == &state().null_stream) {
    for (CUstream_st* other : state().streams)
      if (other->blocking) drain(other);
  }
  drain(s);
  return state().error;
}

cudaError_t finish_all() {
  if (is_any_captured()) return set_error(cudaErrorStreamCaptureUnsupported);
  ++host_calls().waits;
  for (;;) {
    std::vector<CUstream_st*> busy;
    for (CUstream_st* s : state().streams)
      if (!s->queue.empty()) busy.push_back(s);
    if (busy.empty()) return state().error;
    run_front(busy[schedule_seed() < 2 ? 0 : state().random() % busy.size()]);
  }
}

}  // namespace cald::emulation

using namespace cald::emulation;

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  *stream = new CUstream_st;
  (*stream)->blocking = !(flags & cudaStreamNonBlocking);
  state().streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  drain(stream);
  state().streams.erase(stream);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return finish(stream); }
cudaError_t cudaDeviceSynchronize() { return finish_all(); }
// A query lets the stream take one step, so that polling ends.
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  CUstream_st* s = resolve(stream);
  if (s->queue.empty()) return state().error;
  run_front(s);
  return cudaErrorNotReady;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  CUstream_st* s = resolve(stream);
  event->stream = s;
  event->capture = s->capture;
  event->record = std::make_shared<CUevent_st::Record>();
  enqueue(stream, [record = event->record] {
    record->done = true;
    record->time = Clock::now();
  });
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  ++host_calls().waits;
  reach(event->record, event->stream);
  return state().error;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (!event->record || event->record->done) return cudaSuccess;
  if (!event->stream->queue.empty()) run_front(event->stream);
  return cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  if (!start->record || !end->record) return set_error(cudaErrorInvalidResourceHandle);
  if (!start->record->done || !end->record->done) return cudaErrorNotReady;
  *ms = std::chrono::duration<float, std::milli>(end->record->time - start->record->time).count();
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (event->capture) {  // the stream joins the capture; the graph keeps the order of the calls, which obeys the event
    resolve(stream)->capture = event->capture;
    return cudaSuccess;
  }
  if (event->record) enqueue(stream, [record = event->record, from = event->stream] { reach(record, from); });
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (resolve(stream) == &state().null_stream) return set_error(cudaErrorStreamCaptureUnsupported);
  stream->capture = new CUgraph_st;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = resolve(stream)->capture;
  if (!*graph) return set_error(cudaErrorIllegalState);
  for (CUstream_st* s : state().streams)
    if (s->capture == *graph) s->capture = nullptr;
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = resolve(stream)->capture ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new CUgraphExec_st{std::make_shared<const std::vector<Work>>(graph->works), graph->whats};
  return cudaSuccess;
}
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t executable, cudaGraph_t graph, cudaGraphExecUpdateResultInfo* result) {
  const bool same = executable->whats == graph->whats;
  *result = {};
  result->result = same ? cudaGraphExecUpdateSuccess : cudaGraphExecUpdateErrorTopologyChanged;
  if (!same) return set_error(cudaErrorGraphExecUpdateFailure);
  executable->works = std::make_shared<const std::vector<Work>>(graph->works);
  ++host_calls().updates;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  ++host_calls().graphs;
  enqueue(stream, [works = executable->works] {
    for (const Work& work : *works) work();
  });
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaPeekAtLastError() { return state().error; }
cudaError_t cudaGetLastError() { return std::exchange(state().error, cudaSuccess); }
// A failed kernel's error says what the emulator found.
const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorLaunchFailure && !state().failure.empty()) return state().failure.c_str();
  return cudaGetErrorName(error);
}
const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorInvalidDeviceFunction:
      return "cudaErrorInvalidDeviceFunction";
    case cudaErrorInvalidMemcpyDirection:
      return "cudaErrorInvalidMemcpyDirection";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorIllegalState:
      return "cudaErrorIllegalState";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorGraphExecUpdateFailure:
      return "cudaErrorGraphExecUpdateFailure";
    default:
      return "unknown CUDA error";
  }
}

}  // extern "C"
