#pragma once
// Operations of a whole warp: all 32 lanes call them together.
#include <cstdint>

#ifdef DRYDOCK_SIMT_EMULATOR
#include "tests/simt/simt_emulator.h"
#else
#include "kernels/cuda/simt_cuda.h"
#endif

namespace drydock::kernels::cuda {

inline constexpr int kWarp = 32;

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x) / kWarp; }

#ifndef DRYDOCK_SIMT_EMULATOR
// The value of lane `lane`, which may differ among the lanes.
template <typename T>
__device__ __forceinline__ T shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffU, value, lane);
}
template <typename T>
__device__ __forceinline__ T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffU, value, mask);
}
// The value of the lane `distance` below; the first lanes keep their own.
template <typename T>
__device__ __forceinline__ T shuffle_up(T value, int distance) {
  return __shfl_up_sync(0xffffffffU, value, static_cast<unsigned>(distance));
}
// Bit l is lane l's predicate.
__device__ __forceinline__ uint32_t ballot(bool predicate) { return __ballot_sync(0xffffffffU, predicate); }
__device__ __forceinline__ int count_bits(uint32_t bits) { return __popc(bits); }
// Index of the lowest set bit; bits is not 0.
__device__ __forceinline__ int lowest_bit(uint32_t bits) { return __ffs(static_cast<int>(bits)) - 1; }
#endif

// Over groups of `Lanes` neighbouring lanes; every lane gets the result.
template <int Lanes = kWarp, typename T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int mask = Lanes / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
template <int Lanes = kWarp>
__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int mask = Lanes / 2; mask > 0; mask /= 2) value = fmaxf(value, shuffle_xor(value, mask));
  return value;
}

// Sum and maximum over the block, given to every thread; `scratch` is (32) in shared memory, and all threads call.
// Ends with a barrier before `scratch` may be used again, so that calls can follow each other.
__device__ __forceinline__ float block_sum(float value, float* scratch) {
  value = warp_sum(value);
  if (lane_index() == 0) scratch[warp_index()] = value;
  sync_block();
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  const float total = warp_sum(lane_index() < warps ? scratch[lane_index()] : 0.0F);
  sync_block();
  return total;
}
__device__ __forceinline__ float block_max(float value, float* scratch) {
  value = warp_max(value);
  if (lane_index() == 0) scratch[warp_index()] = value;
  sync_block();
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  const float largest = warp_max(lane_index() < warps ? scratch[lane_index()] : scratch[0]);
  sync_block();
  return largest;
}

}  // namespace drydock::kernels::cuda
