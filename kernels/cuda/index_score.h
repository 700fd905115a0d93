#pragma once
// The indexer of sparse attention on a GPU: scores by mma.sync in fp8, then each row's highest by digits of their rank.
#include "kernels/attention.h"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/workspace.h"

namespace drydock::kernels::cuda {

// Scores of all pairs of a token and what it may see, in fp32. The workspace's counters are not used.
size_t index_score_workspace_bytes(const IndexScore& op);

// Asynchronous on `stream`; no tokens are a no-op. head_dim 128, heads a multiple of 16 up to 64, contexts below 2^20;
// q and keys aligned to 16 bytes. Throws core::Error on what it cannot compute, on a workspace too small or if a launch
// fails.
void index_score(const IndexScore& op, const Workspace& workspace, Stream stream);

}  // namespace drydock::kernels::cuda
