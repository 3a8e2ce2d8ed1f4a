// Streams, events and graphs, lazy: work runs only when somebody waits for it, in an order that the streams and events
// allow and the schedule seed picks. So a forgotten synchronisation shows as old data.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <string>

namespace cald::emulation {

using Work = std::function<void()>;

/// Appends `work` to the stream or, while it is captured, to the graph. The null stream runs it at once, after all
/// that blocking streams hold. `what` tells works apart that cannot take each other's place when a graph is updated: a
/// kernel's address, or null.
void enqueue(cudaStream_t stream, Work work, const void* what = nullptr);
bool is_captured(cudaStream_t stream);
/// Whether any stream is being captured, which what concerns the whole device would break.
bool is_any_captured();

/// What the host did since the program began.
struct HostCalls {
  std::int64_t waits = 0;    ///< for a stream, an event or the device
  std::int64_t works = 0;    ///< given to streams, a graph's launch being one
  std::int64_t graphs = 0;   ///< launches of graphs
  std::int64_t updates = 0;  ///< of graphs that were ready
  std::int64_t blocks = 0;   ///< of device or pinned memory taken
};
HostCalls& host_calls();
/// Runs all that the stream holds. The status is that of the first work that failed and was not yet reported.
cudaError_t finish(cudaStream_t stream);
cudaError_t finish_all();

/// Sets what cudaGetLastError returns, and returns it.
cudaError_t set_error(cudaError_t error);

}  // namespace cald::emulation
