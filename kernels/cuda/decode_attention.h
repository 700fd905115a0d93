#pragma once
// Decode attention on a GPU: one new token per sequence over a paged cache, split over thread blocks.
//
// A block takes a range of one sequence's tokens for up to 16 query heads of one KV head, which are the rows of its
// tensor-core products, so that the cache is read once for all of them. Each warp walks over tiles of 16 tokens on its
// own, with its own ring of asynchronous copies; warps, then blocks, add their partial softmaxes up at the end.
// Memory traffic is the cache once (groups of more than 16 heads: once per 16, from L2 but for the first) plus
// 8 * batch * heads * splits * (head_dim + 2) bytes of partial results when there are several splits.
#include "kernels/attention.h"
#include "kernels/cuda/attention_workspace.h"
#include "kernels/cuda/stream.h"

namespace drydock::kernels::cuda {

// Bytes that a launch like `op` on the current device needs; its pointers are not looked at. 0 when nothing is split.
size_t decode_workspace_bytes(const DecodeAttention& op, const SplitOptions& options = {});

// Asynchronous on `stream`; an empty batch is a no-op. q, out, k and v are aligned to 16 bytes; dtype is bf16, the
// cache's bf16 or fp8. Throws core::Error on what it cannot compute, on a workspace too small or if a launch fails.
void decode_attention(const DecodeAttention& op, const AttentionWorkspace& workspace, Stream stream,
                      const SplitOptions& options = {});

}  // namespace drydock::kernels::cuda
