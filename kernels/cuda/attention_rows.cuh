#pragma once
// Which rows a tile of prefill attention has and which tokens each of them sees.
#include <cstdint>

#include "kernels/attention.h"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {

struct PrefillArguments {
  const unsigned char* q = nullptr;
  unsigned char* out = nullptr;
  const unsigned char* k = nullptr;
  const unsigned char* v = nullptr;
  const int32_t* blocks = nullptr;
  const int32_t* starts = nullptr;
  const int32_t* contexts = nullptr;
  const float* sinks = nullptr;
  int64_t blocks_per_sequence = 0;
  int block_shift = 0;  // log2(block_tokens)
  int heads = 0, kv_heads = 0, group = 0, window = 0;
  float logit_scale = 1, value_scale = 1;
};

PrefillArguments prefill_arguments(const PrefillAttention& op);

// Rows of one sequence and KV head: row r is token r / group of the chunk and head r % group of the group.
struct PrefillTile {
  int sequence, kv_head, group;
  int first_row, rows;  // of this tile; rows <= 0: none
  int start, cached;    // first row of q, tokens before the chunk

  // One past the last token that a row sees.
  __device__ __forceinline__ int end_of(int row) const { return cached + (first_row + row) / group + 1; }
  // A row's place in q and out, counted in heads.
  __device__ __forceinline__ int64_t place(const PrefillArguments& args, int row) const {
    const int r = first_row + row;
    return static_cast<int64_t>(start + r / group) * args.heads + head(row);
  }
  __device__ __forceinline__ int head(int row) const { return kv_head * group + (first_row + row) % group; }
};

// Blocks (tile of rows, KV head, sequence). The last tiles, which have most to do, start first.
__device__ __forceinline__ PrefillTile tile_of_block(const PrefillArguments& args, int tile_rows) {
  PrefillTile tile;
  tile.sequence = static_cast<int>(blockIdx.z);
  tile.kv_head = static_cast<int>(blockIdx.y);
  tile.group = args.group;
  tile.start = args.starts[tile.sequence];
  const int fresh = args.starts[tile.sequence + 1] - tile.start;
  tile.cached = args.contexts[tile.sequence] - fresh;
  tile.first_row = static_cast<int>(gridDim.x - 1 - blockIdx.x) * tile_rows;
  const int left = fresh * args.group - tile.first_row;
  tile.rows = left < tile_rows ? left : tile_rows;
  return tile;
}

struct TokenSpan {
  int first, last;  // [first, last)
};
// All that some row of the tile sees.
__device__ __forceinline__ TokenSpan span_of(const PrefillTile& tile, int window) {
  const int first = tile.end_of(0) - window;
  return {window > 0 && first > 0 ? first : 0, tile.end_of(tile.rows - 1)};
}
// Whether some row does not see all of tokens [first, first + count).
__device__ __forceinline__ bool needs_mask(const PrefillTile& tile, int window, int first, int count) {
  return first + count > tile.end_of(0) || (window > 0 && first < tile.end_of(tile.rows - 1) - window);
}

// What a row's sums are multiplied by to be the output: 1 / the softmax's sum, a sink's part included.
__device__ __forceinline__ float row_factor(const PrefillArguments& args, int head, float top, float sum) {
  if (sum == 0) return 0;
  if (args.sinks == nullptr) return args.value_scale / sum;
  const float sink = args.sinks[head] * kLog2E, whole = fmaxf(top, sink), kept = fast_exp2(top - whole);
  return args.value_scale * kept / (sum * kept + fast_exp2(sink - whole));
}

}  // namespace drydock::kernels::cuda
