#pragma once
// CUDA's runtime as the profiler uses it: failures as exceptions, and where work goes.
#include <cuda_runtime_api.h>

#include <vector>

#include "kernels/cuda/stream.h"

namespace drydock::profiler::cuda {

// Throws core::Error, with CUDA's own words, when a call failed; `what` is what was tried.
void check(cudaError_t status, const char* what);

// A GPU and the stream on it that work is enqueued on.
struct Lane {
  int device = 0;
  kernels::cuda::Stream stream = nullptr;
};

// Makes a device the current one for as long as it lives.
class DeviceScope {
 public:
  explicit DeviceScope(int device);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int before_ = 0;
};

// run(i) for each lane, its device current.
template <typename Run>
void on_each(const std::vector<Lane>& lanes, const Run& run) {
  for (size_t i = 0; i < lanes.size(); ++i) {
    const DeviceScope scope(lanes[i].device);
    run(i);
  }
}

}  // namespace drydock::profiler::cuda
