#pragma once
// Multi-head latent attention of new tokens, not absorbed, on a GPU: mma.sync with asynchronous copies, sm_80 and
// later. Keys are put together on their way into shared memory, from each head's own part and the one that all heads
// share.
#include "kernels/attention.h"
#include "kernels/cuda/stream.h"

namespace drydock::kernels::cuda {

// Asynchronous on `stream`; no tokens are a no-op. nope, rope and value_dim: 128, 64 and 128, or 192, 64 and 256; all
// pointers aligned to 16 bytes, rope_stride a multiple of 8, bf16. Throws core::Error on what it cannot compute or if
// the launch fails.
void mla_prefill(const MlaPrefill& op, Stream stream);

}  // namespace drydock::kernels::cuda
