// Streams, events and graphs, lazy: work runs only when somebody waits for it, in an order that the streams and events
// allow and the schedule seed picks. So a forgotten synchronisation shows as old data.
#pragma once
#include <cuda_runtime_api.h>

#include <functional>
#include <string>

namespace cald::emulation {

using Work = std::function<void()>;

/// Appends `work` to the stream or, while it is captured, to the graph. The null stream runs it at once, after all
/// that blocking streams hold.
void enqueue(cudaStream_t stream, Work work);
/// Runs all that the stream holds. The status is that of the first work that failed and was not yet reported.
cudaError_t finish(cudaStream_t stream);
cudaError_t finish_all();

/// Sets what cudaGetLastError returns, and returns it.
cudaError_t set_error(cudaError_t error);

}  // namespace cald::emulation
