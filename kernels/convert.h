#pragma once
// Many numbers from one storage type to another, at the speed of memory.
#include <cstdint>

#include "core/dtype.h"

namespace drydock::kernels {

// `count` elements of fp32, bf16 or fp8 to fp32: out = element * scale. Host memory.
void widen(const void* in, core::Dtype dtype, int64_t count, float scale, float* out);

// element = in / divisor, rounded to nearest even as in element.h; the divisor is not 0.
void narrow(const float* in, int64_t count, float divisor, core::Dtype dtype, void* out);

}  // namespace drydock::kernels
