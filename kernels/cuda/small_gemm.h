#pragma once
// Matrix products of few rows (m <= 16), as a step that decodes for few users needs them: bound by reading the weights
// once. bf16 x bf16, or fp8 x fp8 with tensor, row or block scales (both alike); out bf16 or fp32.
#include "kernels/cuda/stream.h"
#include "kernels/cuda/workspace.h"
#include "kernels/gemm.h"

namespace drydock::kernels::cuda {

inline constexpr int64_t kSmallGemmRows = 16;

// Whether small_gemm can do it: m, the dtypes and scalings above, a and b aligned to 16 bytes with strides and k that
// are multiples of 16 bytes.
bool fits_small_gemm(const Gemm& op);

// Blocks that share one tile of 16 weight rows, each along a part of k: enough to give every multiprocessor two, but
// at least 2 KiB of a row to each. 1 to 8.
int64_t small_gemm_splits(int64_t n, int64_t row_bytes, int sms);

// Of the workspace that small_gemm needs on the current device.
size_t small_gemm_workspace_bytes(const Gemm& op);

// Asynchronous; starts reading the weights before the kernel ahead of it in the stream has ended, so b must not be
// written by that one. Throws core::Error when it does not fit, the workspace is too small or the launch fails. The
// result does not depend on timing: parts of k are added in order.
void small_gemm(const Gemm& op, const Workspace& workspace, Stream stream);

}  // namespace drydock::kernels::cuda
