#include "profiler/cuda/runtime.h"

#include <string>

#include "core/error.h"

namespace drydock::profiler::cuda {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // else the next call reports it again
  throw core::Error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

DeviceScope::DeviceScope(int device) {
  check(cudaGetDevice(&before_), "current device");
  check(cudaSetDevice(device), "choosing a device");
}

DeviceScope::~DeviceScope() { cudaSetDevice(before_); }

}  // namespace drydock::profiler::cuda
