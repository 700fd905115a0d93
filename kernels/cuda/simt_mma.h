#pragma once
// Tensor-core products of a warp, as every GPU since sm_80 has them. All 32 lanes call together; fragments are spread
// over the lanes as the PTX ISA says (9.7.14.5, "Matrix Fragments for mma.m16n8k16" and "... m16n8k32"):
//   group = lane / 4, pair = lane % 4; a "register" holds 2 bf16 or 4 e4m3, lowest address in the low bits.
//   a[0]: row group,     columns 2 pair, +1 (fp8: 4 pair ... +3)     a[1]: row group + 8, the same columns
//   a[2]: row group,     columns + 8 (fp8: + 16)                      a[3]: row group + 8, columns + 8 (fp8: + 16)
//   b[0]: k = 2 pair, +1 (fp8: 4 pair ... +3), column group           b[1]: k + 8 (fp8: + 16)
//   c[0], c[1]: row group, columns 2 pair, +1                         c[2], c[3]: row group + 8
#include <cstdint>

#include "kernels/cuda/simt_numbers.h"
#include "kernels/cuda/simt_warp.h"

namespace drydock::kernels::cuda {

#ifndef DRYDOCK_SIMT_EMULATOR
// Four 8 x 8 matrices of 16-bit elements from shared memory: lane l gives the address of row l % 8 of matrix l / 8 (16
// bytes, aligned); out[i] is matrix i's elements (lane / 4, 2 (lane % 4)) and the next.
__device__ __forceinline__ void load_matrix_x4(uint32_t (&out)[4], const void* row) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
}
// As load_matrix_x4, each matrix transposed: out[i] is elements (2 (lane % 4), lane / 4) and (2 (lane % 4) + 1, lane /
// 4).
__device__ __forceinline__ void load_matrix_x4_transposed(uint32_t (&out)[4], const void* row) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
}

// c (16, 8) += a (16, 16) b (16, 8), bf16 into fp32.
__device__ __forceinline__ void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#if __CUDA_ARCH__ < 890
__device__ __forceinline__ void mma_half(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                         uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
#endif

// c (16, 8) += a (16, 32) b (32, 8), e4m3 into fp32. Before sm_89 by way of fp16, which holds every e4m3 number; the
// order of k differs then, alike for a and b.
__device__ __forceinline__ void mma_fp8(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 890
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  mma_half(c, fp8_pair_to_half(a[0]), fp8_pair_to_half(a[1]), fp8_pair_to_half(a[0] >> 16U),
           fp8_pair_to_half(a[1] >> 16U), fp8_pair_to_half(b0), fp8_pair_to_half(b0 >> 16U));
  mma_half(c, fp8_pair_to_half(a[2]), fp8_pair_to_half(a[3]), fp8_pair_to_half(a[2] >> 16U),
           fp8_pair_to_half(a[3] >> 16U), fp8_pair_to_half(b1), fp8_pair_to_half(b1 >> 16U));
#endif
}
#endif  // the emulator has its own of the same names

}  // namespace drydock::kernels::cuda
