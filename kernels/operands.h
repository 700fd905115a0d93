#pragma once
// Matrices of a contract as the CPU kernels take them: checked, addressed, and row by row in fp32.
#include <cstdint>
#include <string_view>

#include "kernels/matrix.h"

namespace drydock::kernels::cpu {

// Throws core::Error "`kernel`: `rule`" unless `holds`; `rule` says what has to be so.
void require(bool holds, std::string_view kernel, std::string_view rule);

// Throws unless the dtype is fp32, bf16 or fp8, extents and stride fit, and only fp8 is scaled.
void check(const Matrix& matrix, std::string_view kernel, std::string_view name);

int64_t element_bytes(core::Dtype dtype);  // 4, 2 or 1

// Element `i`, counted in elements from `data`.
inline const void* at(const void* data, core::Dtype dtype, int64_t i) {
  return static_cast<const char*>(data) + i * element_bytes(dtype);
}
inline void* at(void* data, core::Dtype dtype, int64_t i) {
  return static_cast<char*>(data) + i * element_bytes(dtype);
}
inline void* row(const Matrix& m, int64_t r) { return at(m.data, m.dtype, r * m.stride); }

// Row r of activations, scaled.
void widen_row(const Matrix& m, int64_t r, float* out);

// Row r from fp32. Of an fp8 matrix with Scaling::row or block the fresh scales go to `scales`, laid out as in Scaling.
void narrow_row(const float* in, const Matrix& m, int64_t r, float* scales);

}  // namespace drydock::kernels::cpu
