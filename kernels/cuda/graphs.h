// CUDA graphs of the pieces of a step.
//
// A piece is captured anew each time, so that its launches are ordinary code with ordinary arguments, and the graph
// that is ready from the time before gets the new arguments (cudaGraphExecUpdate): the device then runs the piece as
// one, without a gap between kernels, for the price of the capture on the host, which is below that of the launches.
#pragma once
#include <cuda_runtime_api.h>

#include <map>
#include <set>
#include <string>

#include "kernels/device.h"

namespace cald::cuda {

class Graphs {
 public:
  Graphs() = default;
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;
  ~Graphs();

  /// What the stream is given until end() becomes a graph; the first time of a name it is launched as ever: code is
  /// loaded and algorithms are chosen, for which a capture is no place.
  void begin(cudaStream_t stream, const GraphName& name);
  /// Launches what was gathered; drops it if it is not complete.
  void end(cudaStream_t stream, bool complete);

 private:
  std::set<std::string> seen_;
  std::map<std::string, cudaGraphExec_t> ready_;  // by kind
  std::string capturing_;                         // the kind at hand; empty if there is none
};

}  // namespace cald::cuda
