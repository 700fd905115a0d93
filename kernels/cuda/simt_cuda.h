#pragma once
// The words of simt.h on a GPU.
#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <string>
#include <utility>

#include "core/error.h"
#include "kernels/cuda/stream.h"

// Feature macros: instructions of exactly this architecture ("a" variants).
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define DRYDOCK_SM90A 1
#else
#define DRYDOCK_SM90A 0
#endif
#if defined(__CUDA_ARCH_FEAT_SM100_ALL)
#define DRYDOCK_SM100A 1
#else
#define DRYDOCK_SM100A 0
#endif

// Declares `unsigned char* name`: the block's dynamic shared memory.
#define DRYDOCK_DYNAMIC_SHARED(name)                               \
  extern __shared__ __align__(128) unsigned char drydock_shared[]; \
  unsigned char* const name = drydock_shared

namespace drydock::kernels::cuda {

// Throws core::Error when a call of the runtime failed; `what` is what was tried.
inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw core::Error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

__device__ __forceinline__ void sync_block() { __syncthreads(); }
__device__ __forceinline__ void sync_warp() { __syncwarp(); }
// Waits for `threads` threads of the block (a multiple of 32) at barrier `id`, 1 to 15.
__device__ __forceinline__ void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Keeps the compiler from moving loads across, where too many in flight would not fit into the registers.
__device__ __forceinline__ void keep_order() { asm volatile("" ::: "memory"); }
__device__ __forceinline__ void memory_fence() { __threadfence(); }
__device__ __forceinline__ void memory_fence_system() { __threadfence_system(); }
__device__ __forceinline__ uint32_t load_acquire_system(const uint32_t* address) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
  return value;
}
__device__ __forceinline__ void store_release_system(uint32_t* address, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}
// Inside a loop that waits for another block or device.
__device__ __forceinline__ void pause() { __nanosleep(20); }

template <typename T>
__device__ __forceinline__ T atomic_add(T* address, T value) {
  return atomicAdd(address, value);
}
template <typename T>
__device__ __forceinline__ T atomic_max(T* address, T value) {
  return atomicMax(address, value);
}

__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float fast_exp(float x) { return __expf(x); }
__device__ __forceinline__ float fast_divide(float x, float y) { return __fdividef(x, y); }
__device__ __forceinline__ float reciprocal_sqrt(float x) { return rsqrtf(x); }
// For |x| up to about pi: absolute error 2^-21 (CUDA C++ Programming Guide, intrinsic functions).
__device__ __forceinline__ float fast_sin(float x) { return __sinf(x); }
__device__ __forceinline__ float fast_cos(float x) { return __cosf(x); }

// 16 bytes from global to shared memory, both aligned to 16; zeros when not `valid` (`global` is not read then).
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid = true) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most `Pending` of this thread's latest groups are under way; others see the bytes after a barrier.
template <int Pending>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

// Until the kernels that this launch depends on have ended and their writes are seen.
__device__ __forceinline__ void dependency_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Lets the next kernel of the stream start its blocks.
__device__ __forceinline__ void dependency_launch() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), "current device");
  check(cudaDeviceGetAttribute(&value, attribute, device), "attribute of the device");
  return value;
}
// Of the current device.
inline int multiprocessors() { return device_attribute(cudaDevAttrMultiProcessorCount); }
inline int most_shared_bytes() { return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin); }
// 80 for sm_80, 90 for sm_90; the emulator says 80.
inline int compute_capability() {
  return 10 * device_attribute(cudaDevAttrComputeCapabilityMajor) + device_attribute(cudaDevAttrComputeCapabilityMinor);
}

// Starts `kernel` on `stream`. Throws core::Error if the launch fails.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), const LaunchShape& shape, Stream stream, Arguments&&... arguments) {
  if (shape.grid_x == 0 || shape.grid_y == 0 || shape.grid_z == 0) return;
  if (shape.shared_bytes > 48 * 1024)
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shape.shared_bytes)),
          "shared memory of a kernel");
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(shape.grid_x, shape.grid_y, shape.grid_z);
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  static const bool programmatic = compute_capability() >= 90;
  if (shape.programmatic && programmatic) {
    attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster_x > 1) {
    attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
    attributes[config.numAttrs++].val.clusterDim = {shape.cluster_x, 1, 1};
  }
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), "launch of a kernel");
}

// Sets `bytes` bytes on the device to 0, asynchronously.
inline void clear(void* address, size_t bytes, Stream stream) {
  check(cudaMemsetAsync(address, 0, bytes, stream), "clearing memory");
}

}  // namespace drydock::kernels::cuda
