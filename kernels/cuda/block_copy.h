#pragma once
// KV blocks between the cache and one contiguous buffer, on a GPU.
#include "kernels/block_copy.h"
#include "kernels/cuda/stream.h"

namespace drydock::kernels::cuda {

// buffer[i] = pool[blocks[i]]. Asynchronous; throws core::Error on a block size that is no multiple of 16 or if the
// launch fails. Either end may be memory of a peer device or pinned host memory, which makes it the transfer itself.
void gather_blocks(const BlockCopy& copy, Stream stream);

// pool[blocks[i]] = buffer[i]; the blocks are different ones.
void scatter_blocks(const BlockCopy& copy, Stream stream);

}  // namespace drydock::kernels::cuda
