#pragma once
// Causal attention of new tokens over a paged cache that holds them already, on a GPU.
//
// The query heads of one KV head and neighbouring tokens form the rows of one tile, token by token, so that any group
// size fills it and the cache is read once for all of a group. Two implementations:
//   - any: mma.sync with asynchronous copies (FlashAttention-2, arXiv 2307.08691), sm_80 and later, bf16 and fp8
//   caches;
//   - hopper: wgmma and TMA with a producer warp and two consumer warpgroups that take turns (FlashAttention-3, arXiv
//     2407.08608), sm_90a, bf16 caches of blocks of 8 to 256 tokens. Not yet run on a GPU, and off until the test of
//     both has passed on one.
#include "kernels/attention.h"
#include "kernels/cuda/stream.h"

namespace drydock::kernels::cuda {

enum class PrefillPath : uint8_t { any, hopper };

// Whether `path` can run `op` on the current device.
bool can_prefill(const PrefillAttention& op, PrefillPath path);

// Asynchronous on `stream`; no tokens are a no-op. q, out, k and v are aligned to 16 bytes; dtype is bf16, the cache's
// bf16 or fp8. Throws core::Error on what it cannot compute or if the launch fails.
void prefill_attention(const PrefillAttention& op, Stream stream, PrefillPath path = PrefillPath::any);

}  // namespace drydock::kernels::cuda
