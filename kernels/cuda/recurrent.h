#pragma once
// Recurrent mixers on a GPU: contracts in kernels/recurrent.h.
//
// A warp holds some columns of one head's state in registers, a quarter of the rows in each group of 8 lanes, and takes
// the tokens one after another; keys and queries stand in shared memory, 16 tokens at a time. The state is read and
// written once, so that decoding is bound by memory; prompts are bound by the length of a token's chain.
#include "kernels/cuda/stream.h"
#include "kernels/recurrent.h"

namespace drydock::kernels::cuda {

// Columns of a state that a lane holds: 1, for the most warps and the shortest chain, or 2, for longer lines of memory.
int recurrent_columns(int64_t heads, int64_t v_dim, int sms);

// Asynchronous on `stream`; no tokens are a no-op. k_dim (state): 64 or 128; v_dim (head_dim): a multiple of 32; all of
// it bf16, rows of qkv (xbc) and addresses multiples of 16 bytes. `columns` 0: recurrent_columns. Throws core::Error on
// what it cannot compute or if the launch fails.
void gated_delta(const GatedDelta& op, Stream stream, int columns = 0);
void mamba2(const Mamba2& op, Stream stream, int columns = 0);

}  // namespace drydock::kernels::cuda
