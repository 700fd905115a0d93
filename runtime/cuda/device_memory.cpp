#include "runtime/cuda/device_memory.h"

#include <string>

#include "core/error.h"

namespace drydock::runtime::cuda {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw core::Error("engine: " + std::string(what) + ": " + cudaGetErrorString(status));
}

template <Place kPlace>
Buffer<kPlace>::Buffer(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  const cudaError_t status = kPlace == Place::device ? cudaMalloc(&data_, bytes) : cudaMallocHost(&data_, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw core::Error("engine: the GPU has no " + std::to_string(bytes >> 20U) +
                      " MiB left; fewer KV blocks or more GPUs are right");
  }
  check(status, "memory");
}

template <Place kPlace>
Buffer<kPlace>::~Buffer() {
  if (data_ != nullptr) kPlace == Place::device ? cudaFree(data_) : cudaFreeHost(data_);
}

template class Buffer<Place::device>;
template class Buffer<Place::pinned>;

}  // namespace drydock::runtime::cuda
