#include "profiler/cuda/memory.h"

#include <string>

#include "core/error.h"
#include "profiler/cuda/plan.h"
#include "profiler/cuda/random_fill.h"

namespace drydock::profiler::cuda {

Memory::~Memory() {
  // Failures have been told by the work that met them.
  int before = 0;
  cudaGetDevice(&before);
  cudaSetDevice(lane_.device);
  cudaStreamSynchronize(lane_.stream);
  for (void* block : blocks_) cudaFree(block);
  cudaSetDevice(before);
}

void* Memory::take(int64_t bytes) {
  const DeviceScope scope(lane_.device);
  const int64_t size = stride_of(bytes);
  void* block = nullptr;
  const cudaError_t status = cudaMalloc(&block, static_cast<size_t>(size));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw core::Error("the GPU has no " + std::to_string(size >> 20) + " MiB left; other processes may use it");
  }
  check(status, "memory");
  blocks_.push_back(block);
  bytes_ += size;
  return block;
}

void* Memory::random(core::Dtype dtype, int64_t bytes) {
  void* const block = take(bytes);
  const DeviceScope scope(lane_.device);
  fill_random(block, dtype, stride_of(bytes), blocks_.size(), lane_.stream);
  return block;
}

void* Memory::zeros(int64_t bytes) {
  void* const block = take(bytes);
  const DeviceScope scope(lane_.device);
  check(cudaMemsetAsync(block, 0, static_cast<size_t>(stride_of(bytes)), lane_.stream), "zeroing memory");
  return block;
}

Rotation Memory::rotation(core::Dtype dtype, int64_t bytes) {
  const int64_t stride = stride_of(bytes), copies = copies_of(bytes, l2_bytes_);
  return {static_cast<char*>(random(dtype, stride * copies)), stride, copies};
}

void* Memory::put(const void* content, int64_t bytes) {
  void* const block = take(bytes);
  const DeviceScope scope(lane_.device);
  if (bytes > 0)
    check(cudaMemcpyAsync(block, content, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, lane_.stream),
          "copying to the GPU");
  check(cudaStreamSynchronize(lane_.stream), "copying to the GPU");
  return block;
}

}  // namespace drydock::profiler::cuda
