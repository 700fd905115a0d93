#pragma once
// Absorbed multi-head latent attention on a GPU, one new token per sequence, split over thread blocks.
//
// A block takes a range of one sequence's tokens for 16 or 64 heads. A tile of 32 tokens is copied to shared memory
// once and serves as keys (all 576 numbers) and as values (the first 512). Logits pass through shared memory: the warps
// share the tokens and dims of the first product, and the columns of the second.
#include "kernels/attention.h"
#include "kernels/cuda/attention_workspace.h"
#include "kernels/cuda/stream.h"

namespace drydock::kernels::cuda {

// Heads of a block; more heads a block read the cache fewer times but need 153 KiB of shared memory.
enum class MlaRows : uint8_t { automatic, few, many };  // 16 or 64

struct MlaOptions {
  SplitOptions split;
  MlaRows rows = MlaRows::automatic;
};

// Bytes that a launch like `op` on the current device needs; its pointers are not looked at. 0 when nothing is split.
size_t mla_workspace_bytes(const MlaDecode& op, const MlaOptions& options = {});

// Asynchronous on `stream`; an empty batch is a no-op. latent is 512 and rope 64, all of it bf16; q, out and the cache
// are aligned to 16 bytes. Throws core::Error on what it cannot compute, on a workspace too small or if a launch fails.
void mla_decode(const MlaDecode& op, const AttentionWorkspace& workspace, Stream stream,
                const MlaOptions& options = {});

// The same kernel over picked tokens: `selected` takes the place of their order. Up to 65535 tokens of queries.
size_t sparse_mla_workspace_bytes(const SparseMla& op, const MlaOptions& options = {});
void sparse_mla(const SparseMla& op, const AttentionWorkspace& workspace, Stream stream,
                const MlaOptions& options = {});

}  // namespace drydock::kernels::cuda
