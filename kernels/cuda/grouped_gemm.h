#pragma once
// One matrix product per expert over rows sorted by expert, in one persistent launch: bf16 x bf16 or fp8 x fp8 (tensor,
// row or block scales, both alike), out bf16 or fp32.
#include "kernels/cuda/stream.h"
#include "kernels/gemm.h"

namespace drydock::kernels::cuda {

// Rows of a tile of the product: 16, 64 or 128, from the mean rows of a group, since the weights of a group are read
// once per tile of its rows and a tile that is mostly empty wastes tensor cores.
int64_t grouped_gemm_tile(int64_t rows, int64_t groups);

// Asynchronous; groups' sizes are read on the device. Rows beyond starts[groups] are not written. Throws core::Error
// on a dtype that it does not know, when a or b are not aligned to 16 bytes with strides and k that are multiples of 16
// bytes, or if the launch fails.
void grouped_gemm(const GroupedGemm& op, Stream stream);

// The same kernel for one product: what there is where cuBLASLt has nothing, as for block scales but on sm_90.
void tiled_gemm(const Gemm& op, Stream stream);

}  // namespace drydock::kernels::cuda
