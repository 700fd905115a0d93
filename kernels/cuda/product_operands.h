#pragma once
// What the tensor-core products of our own take (small_gemm, grouped_gemm): bf16 x bf16, or fp8 x fp8 with scales of
// one kind, in rows of whole 16 bytes.
#include <cstdint>

#include "kernels/matrix.h"

namespace drydock::kernels::cuda {

struct ProductOperands {
  const uint8_t* a;
  const uint8_t* b;
  void* out;
  const float* a_scales;
  const float* b_scales;
  int64_t a_stride_bytes, b_stride_bytes, out_stride;
  int64_t rows, n, row_bytes;
  Scaling scaling;  // none: bf16
  bool out_fp32;
};

inline int64_t element_bytes(const Matrix& matrix) { return matrix.dtype == core::Dtype::fp8 ? 1 : 2; }

// Formats only: both bf16, or both fp8 scaled alike, into bf16 or fp32.
inline bool is_known_product(const Matrix& a, const Matrix& b, const Matrix& out) {
  const bool bf16 = a.dtype == core::Dtype::bf16 && b.dtype == core::Dtype::bf16;
  const bool fp8 = a.dtype == core::Dtype::fp8 && b.dtype == core::Dtype::fp8 && a.scaling == b.scaling &&
                   a.scaling != Scaling::none;
  return (bf16 || fp8) && (out.dtype == core::Dtype::bf16 || out.dtype == core::Dtype::fp32);
}

// Address, stride and columns are multiples of 16 bytes.
inline bool has_whole_pieces(const Matrix& matrix) {
  const int64_t bytes = element_bytes(matrix);
  return reinterpret_cast<uintptr_t>(matrix.data) % 16 == 0 && matrix.stride * bytes % 16 == 0 &&
         matrix.cols * bytes % 16 == 0;
}

// Of out(rows, n) = a(rows, k) b(n, k)^T, or of one group of such.
inline ProductOperands product_operands(const Matrix& a, const Matrix& b, const Matrix& out, int64_t n) {
  const int64_t bytes = element_bytes(a);
  return {.a = static_cast<const uint8_t*>(a.data),
          .b = static_cast<const uint8_t*>(b.data),
          .out = out.data,
          .a_scales = a.scales,
          .b_scales = b.scales,
          .a_stride_bytes = a.stride * bytes,
          .b_stride_bytes = b.stride * bytes,
          .out_stride = out.stride,
          .rows = a.rows,
          .n = n,
          .row_bytes = a.cols * bytes,
          .scaling = bytes == 1 ? a.scaling : Scaling::none,
          .out_fp32 = out.dtype == core::Dtype::fp32};
}

}  // namespace drydock::kernels::cuda
