#include "kernels/cuda/graphs.h"

#include <utility>

#include "kernels/cuda/check_launch.h"

namespace cald::cuda {
namespace {
constexpr const char* kName = "graph";
}  // namespace

Graphs::~Graphs() {
  for (const auto& [kind, graph] : ready_) cudaGraphExecDestroy(graph);
}

void Graphs::begin(cudaStream_t stream, const GraphName& name) {
  if (seen_.insert(name.kind + "/" + name.shape).second) return;
  // Relaxed: what else this program's threads, or the libraries in a launch, ask of CUDA meanwhile is no error.
  check_launch(kName, cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  capturing_ = name.kind;
}

void Graphs::end(cudaStream_t stream, bool complete) {
  if (capturing_.empty()) return;
  const std::string kind = std::exchange(capturing_, {});
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
  if (!complete) {
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError();
    return;
  }
  check_launch(kName, ended);
  cudaGraphExec_t& ready = ready_[kind];
  cudaGraphExecUpdateResultInfo result{};
  if (ready && cudaGraphExecUpdate(ready, graph, &result) != cudaSuccess) {
    cudaGetLastError();  // a product of another shape may be another number of kernels
    check_launch(kName, cudaStreamSynchronize(stream));
    cudaGraphExecDestroy(ready);
    ready = nullptr;
  }
  const cudaError_t made = ready ? cudaSuccess : cudaGraphInstantiate(&ready, graph, 0);
  cudaGraphDestroy(graph);
  check_launch(kName, made);
  check_launch(kName, cudaGraphLaunch(ready, stream));
}

}  // namespace cald::cuda
