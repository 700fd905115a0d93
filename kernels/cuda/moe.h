#pragma once
// Around the grouped GEMM of a layer of experts, on a GPU: contracts in kernels/moe.h. All are asynchronous on `stream`
// and throw core::Error on shapes that they do not know or if the launch fails; nothing to do is a no-op.
#include "kernels/cuda/stream.h"
#include "kernels/cuda/workspace.h"
#include "kernels/moe.h"

namespace drydock::kernels::cuda {

inline constexpr int64_t kMostExperts = 1024;

// Experts: at most kMostExperts; top_k at most 32.
void route(const Route& op, Stream stream);

size_t permute_workspace_bytes(const Permute& op);
// Local experts: at most kMostExperts. The workspace's counters are not used.
void permute(const Permute& op, const Workspace& workspace, Stream stream);

// in and out bf16, or both fp8 without scales.
void gather(const Gather& op, Stream stream);

// in bf16 or fp32, out bf16.
void combine(const Combine& op, Stream stream);

}  // namespace drydock::kernels::cuda
