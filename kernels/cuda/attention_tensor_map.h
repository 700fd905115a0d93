#pragma once
// How TMA reads a paged cache.
#include "kernels/attention.h"
#include "kernels/cuda/tensor_map.h"

namespace drydock::kernels::cuda {

// The cache as (tokens, KV heads, dims), with boxes of (box_tokens, 1, 64). How many tokens it has is not known here,
// and only those that the table names are read.
inline CUtensorMap cache_map(const PagedKv& kv, void* data, int box_tokens) {
  constexpr cuuint64_t kManyTokens = 0x7fffffff;
  const auto row = static_cast<cuuint64_t>(kv.head_dim) * 2;
  const cuuint64_t extents[3] = {static_cast<cuuint64_t>(kv.head_dim), static_cast<cuuint64_t>(kv.kv_heads),
                                 kManyTokens};
  const cuuint64_t strides[2] = {row, row * static_cast<cuuint64_t>(kv.kv_heads)};
  const cuuint32_t box[3] = {64, 1, static_cast<cuuint32_t>(box_tokens)};
  return tensor_map(CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, data, extents, strides, box, "a KV cache");
}

}  // namespace drydock::kernels::cuda
