#pragma once
// How many thread blocks share the cache of one sequence and KV head in decode attention.
#include <cstdint>

namespace drydock::kernels {

struct SplitChoice {
  int64_t splits = 1;
  int64_t tokens_per_split = 0;  // a multiple of the tile
};

// `tiles`: batch * kv_heads (units of work without splitting); `sms` * `blocks_per_sm` run at once; a split reads at
// least one tile of `tile_tokens`. Smallest number of splits within 85 % of the best wave efficiency, as
// FlashAttention-3 chooses (hopper/heuristics.h); 1 when the tiles fill 80 % of the SMs already.
SplitChoice choose_splits(int64_t tiles, int64_t context, int64_t tile_tokens, int sms, int blocks_per_sm);

}  // namespace drydock::kernels
