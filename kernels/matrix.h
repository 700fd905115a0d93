#pragma once
// What kernels take and give: matrices in the memory of one device, with the scales of quantized ones.
#include <cstdint>

#include "core/dtype.h"

namespace drydock::kernels {

// How fp8 (e4m3) elements become numbers: element * scale.
enum class Scaling : uint8_t {
  none,    // fp32 and bf16
  tensor,  // scales: 1
  row,     // scales: rows; of weights, one per output channel
  block,   // scales: activations (rows, ceil(cols / 128)); weights (ceil(rows / 128), ceil(cols / 128)); row-major
};

// Row-major; element (r, c) at r * stride + c. Does not own its memory, which is the device's the kernel runs on.
struct Matrix {
  void* data = nullptr;
  core::Dtype dtype = core::Dtype::bf16;  // fp32, bf16 or fp8 (fp8_block in Op is fp8 with Scaling::block)
  int64_t rows = 0, cols = 0;
  int64_t stride = 0;  // elements, >= cols
  const float* scales = nullptr;
  Scaling scaling = Scaling::none;
};

}  // namespace drydock::kernels
