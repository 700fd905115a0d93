#pragma once
// Eight neighbouring numbers of a row as one thread holds them, 16 bytes of bf16; device code only.
#include <cstdint>

#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {

struct Eight {
  float values[8];
};

// Aligned to 16 bytes, as fp32 and fp8 below to 16 and 8.
__device__ __forceinline__ Eight load_eight(const Bf16* from) {
  const Word4 words = *reinterpret_cast<const Word4*>(from);
  Eight out;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const Float2 pair = unpack_bf16(words[j]);
    out.values[2 * j] = pair.x;
    out.values[2 * j + 1] = pair.y;
  }
  return out;
}
__device__ __forceinline__ Eight load_eight(const float* from) {
  const Vector<float, 4> low = load_vector<4>(from), high = load_vector<4>(from + 4);
  Eight out;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    out.values[j] = low[j];
    out.values[4 + j] = high[j];
  }
  return out;
}

__device__ __forceinline__ void store_eight(Bf16* to, const Eight& eight) {
  Word4 words;
#pragma unroll
  for (int j = 0; j < 4; ++j) words[j] = pack_bf16(eight.values[2 * j], eight.values[2 * j + 1]);
  *reinterpret_cast<Word4*>(to) = words;
}
// Each times `factor`.
__device__ __forceinline__ void store_eight(Fp8* to, const Eight& eight, float factor) {
  Vector<uint16_t, 4> pairs;
#pragma unroll
  for (int j = 0; j < 4; ++j) pairs[j] = pack_fp8(eight.values[2 * j] * factor, eight.values[2 * j + 1] * factor);
  *reinterpret_cast<Vector<uint16_t, 4>*>(to) = pairs;
}

}  // namespace drydock::kernels::cuda
