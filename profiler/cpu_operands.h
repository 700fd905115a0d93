#pragma once
// Matrices of this host's memory as its kernels take them; a part of the launches.
#include <vector>

#include "kernels/matrix.h"
#include "profiler/host_memory.h"

namespace drydock::profiler {

inline bool is_fp8(core::Dtype dtype) { return dtype == core::Dtype::fp8 || dtype == core::Dtype::fp8_block; }
inline core::Dtype stored(core::Dtype dtype) { return is_fp8(dtype) ? core::Dtype::fp8 : dtype; }
inline int64_t width(core::Dtype dtype) { return dtype == core::Dtype::fp32 ? 4 : is_fp8(dtype) ? 1 : 2; }
inline core::Dtype activation(core::Dtype weights) {
  return weights == core::Dtype::fp32 ? core::Dtype::fp32 : core::Dtype::bf16;
}
inline int64_t blocks_of(int64_t extent) { return (extent + 127) / 128; }

// A matrix with memory of its own; fp8 with scales of 1.
struct Owned {
  Owned(core::Dtype dtype, int64_t rows, int64_t cols) : memory(dtype, rows * cols * width(dtype)) {
    matrix = {memory.data(), dtype, rows, cols, cols, nullptr, kernels::Scaling::none};
  }
  RandomMemory memory;
  kernels::Matrix matrix;
};

// Weights in as many copies as it takes to keep them out of the cache.
struct Weights {
  Weights(core::Dtype dtype, int64_t rows, int64_t cols)
      : copies(stored(dtype), rows * cols * width(dtype)),
        scales(static_cast<size_t>(blocks_of(rows) * blocks_of(cols)), 1.0F) {
    const bool block = dtype == core::Dtype::fp8_block;
    matrix = {nullptr,
              stored(dtype),
              rows,
              cols,
              cols,
              is_fp8(dtype) ? scales.data() : nullptr,
              block           ? kernels::Scaling::block
              : is_fp8(dtype) ? kernels::Scaling::tensor
                              : kernels::Scaling::none};
  }
  kernels::Matrix at(int64_t turn) const {
    kernels::Matrix out = matrix;
    out.data = copies.at(turn);
    return out;
  }
  Rotation copies;
  std::vector<float> scales;
  kernels::Matrix matrix;
};

}  // namespace drydock::profiler
