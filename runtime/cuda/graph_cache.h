#pragma once
// Steps that decode only, as CUDA graphs: one per batch and context, rounded up.
#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "runtime/step_arrays.h"

namespace drydock::runtime::cuda {

class GraphCache {
 public:
  explicit GraphCache(cudaStream_t stream) : stream_(stream) {}
  ~GraphCache() { clear(); }
  GraphCache(const GraphCache&) = delete;
  GraphCache& operator=(const GraphCache&) = delete;

  // Enqueues `launch`: by itself for the first step of these extents, which warms libraries up; captured with the
  // second; replayed from then on.
  void run(const StepExtents& padded, const std::function<void()>& launch);
  // Whether a step of these extents has run since the last clear().
  bool knows(const StepExtents& padded) const { return graphs_.contains({padded.singles, padded.blocks_per_sequence}); }
  void clear();  // memory has moved; the stream is idle

 private:
  static constexpr size_t kMost = 512;
  cudaGraphExec_t capture(const std::function<void()>& launch) const;

  cudaStream_t stream_;
  std::map<std::pair<int64_t, int64_t>, cudaGraphExec_t> graphs_;  // null: ran once
};

}  // namespace drydock::runtime::cuda
