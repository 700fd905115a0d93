#pragma once
// Random inputs for kernels, the same on every machine, and matrices around them.
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/element.h"
#include "kernels/matrix.h"

namespace drydock::tests {

// Between -1 and 1.
inline std::vector<float> random_floats(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> out(static_cast<size_t>(count));
  for (float& x : out) x = static_cast<float>(random() >> 8U) * 0x1p-23F - 1;
  return out;
}

inline std::vector<kernels::Bf16> random_bf16(int64_t count, uint32_t seed, float scale = 1) {
  std::vector<kernels::Bf16> out;
  for (const float x : random_floats(count, seed)) out.push_back(kernels::to_bf16(scale * x));
  return out;
}

inline std::vector<kernels::Fp8> random_fp8(int64_t count, uint32_t seed, float scale = 448) {
  std::vector<kernels::Fp8> out;
  for (const float x : random_floats(count, seed)) out.push_back(kernels::to_fp8(scale * x));
  return out;
}

inline core::Dtype dtype_of(const float*) { return core::Dtype::fp32; }
inline core::Dtype dtype_of(const kernels::Bf16*) { return core::Dtype::bf16; }
inline core::Dtype dtype_of(const kernels::Fp8*) { return core::Dtype::fp8; }

// `stride` 0: cols.
template <typename T>
kernels::Matrix matrix(T* data, int64_t rows, int64_t cols, int64_t stride = 0) {
  return {.data = data, .dtype = dtype_of(data), .rows = rows, .cols = cols, .stride = stride == 0 ? cols : stride};
}
template <typename T>
kernels::Matrix scaled_matrix(T* data, int64_t rows, int64_t cols, const float* scales, kernels::Scaling scaling) {
  kernels::Matrix out = matrix(data, rows, cols);
  out.scales = scales;
  out.scaling = scaling;
  return out;
}

// Scales of a quantized matrix of `rows` rows of activations.
inline int64_t scales_of(kernels::Scaling scaling, int64_t rows, int64_t cols) {
  return scaling == kernels::Scaling::tensor ? 1
         : scaling == kernels::Scaling::row  ? rows
                                             : rows * ((cols + 127) / 128);
}

}  // namespace drydock::tests
