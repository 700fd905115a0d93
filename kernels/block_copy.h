#pragma once
// KV blocks between the cache and one contiguous buffer, for transfer between workers.
#include <cstdint>

namespace drydock::kernels {

// gather: buffer[i] = pool[blocks[i]]; scatter: pool[blocks[i]] = buffer[i]; blocks of `block_bytes`, a multiple of 16.
struct BlockCopy {
  void* pool = nullptr;
  void* buffer = nullptr;
  const int32_t* blocks = nullptr;  // (count)
  int64_t count = 0, block_bytes = 0;
};

}  // namespace drydock::kernels
