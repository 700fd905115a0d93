#include "runtime/cuda/graph_cache.h"

#include "runtime/cuda/device_memory.h"

namespace drydock::runtime::cuda {
namespace {

// Ends a capture that is left early.
class OpenCapture {
 public:
  explicit OpenCapture(cudaStream_t stream) : stream_(stream) {
    // Of this thread only: NCCL's own threads may allocate meanwhile.
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing a graph");
  }
  ~OpenCapture() {
    if (stream_ == nullptr) return;
    cudaGraph_t graph = nullptr;
    cudaStreamEndCapture(stream_, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    cudaGetLastError();
  }
  OpenCapture(const OpenCapture&) = delete;
  OpenCapture& operator=(const OpenCapture&) = delete;

  cudaGraph_t end() {
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(std::exchange(stream_, nullptr), &graph), "capturing a graph");
    return graph;
  }

 private:
  cudaStream_t stream_;
};

}  // namespace

void GraphCache::run(const StepExtents& padded, const std::function<void()>& launch) {
  if (graphs_.size() >= kMost) {
    check(cudaStreamSynchronize(stream_), "a step");
    clear();
  }
  const auto [found, is_new] = graphs_.try_emplace({padded.singles, padded.blocks_per_sequence}, nullptr);
  if (is_new) return launch();
  if (found->second == nullptr) found->second = capture(launch);
  check(cudaGraphLaunch(found->second, stream_), "starting a graph");
}

cudaGraphExec_t GraphCache::capture(const std::function<void()>& launch) const {
  OpenCapture capture(stream_);
  launch();
  cudaGraph_t graph = capture.end();
  cudaGraphExec_t executable = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "making a graph");
  return executable;
}

void GraphCache::clear() {
  for (auto& [key, graph] : graphs_)
    if (graph != nullptr) cudaGraphExecDestroy(graph);
  graphs_.clear();
}

}  // namespace drydock::runtime::cuda
