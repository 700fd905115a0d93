#pragma once
// What a launch of an attention kernel moves and computes, beside the least that its op needs (core/op.h): how far the
// tiles and splits themselves are from the floors, before any time is measured. All contexts of a batch are equal.
#include "core/op.h"
#include "kernels/cuda/prefill_attention.h"

namespace drydock::kernels::cuda {

struct AttentionWork {
  double floor_bytes = 0, floor_flops = 0;  // core::bytes, core::flops
  double moved_bytes = 0;                   // asked of global memory, whether DRAM or L2 answers
  double issued_flops = 0;                  // of the tensor cores, rows and tokens that only fill tiles included
};

// Rows (token and head) and tokens of a tile of prefill attention.
struct PrefillTileShape {
  int rows, tokens;
};
constexpr PrefillTileShape prefill_tile_shape(int head_dim, bool fp8, PrefillPath path) {
  if (path == PrefillPath::hopper) return {128, head_dim == 256 ? 64 : 128};
  // What registers hold sums and logits of.
  return {head_dim == 256 ? 64 : 128, head_dim == 256 || (head_dim == 128 && fp8) ? 32 : 64};
}

// `op` is of kind decode_attention, prefill_attention or mla_decode; `splits` as the launch has them.
AttentionWork decode_work(const core::Op& op, int64_t splits);
AttentionWork prefill_work(const core::Op& op, PrefillPath path);
AttentionWork mla_work(const core::Op& op, int64_t splits, int64_t rows);  // rows: heads of a block, 16 or 64

}  // namespace drydock::kernels::cuda
