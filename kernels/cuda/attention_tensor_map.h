#pragma once
// How TMA reads a paged cache.
#include <cuda.h>

#include <string>

#include "core/error.h"
#include "kernels/attention.h"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {

using EncodeTiled = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                                 const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                                 CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// libcuda's, found by the runtime: nothing here is linked against the driver.
inline EncodeTiled encode_tiled() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
        "looking up cuTensorMapEncodeTiled");
  if (found != cudaDriverEntryPointSuccess)
    throw core::Error("CUDA: the driver has no cuTensorMapEncodeTiled; one for CUDA 12 or later is right");
  return reinterpret_cast<EncodeTiled>(function);
}

// The cache as (tokens, KV heads, dims), with boxes of (box_tokens, 1, 64). How many tokens it has is not known here,
// and only those that the table names are read.
inline CUtensorMap cache_map(const PagedKv& kv, void* data, int box_tokens) {
  constexpr cuuint64_t kManyTokens = 0x7fffffff;
  const auto row = static_cast<cuuint64_t>(kv.head_dim) * 2;
  const cuuint64_t extents[3] = {static_cast<cuuint64_t>(kv.head_dim), static_cast<cuuint64_t>(kv.kv_heads),
                                 kManyTokens};
  const cuuint64_t strides[2] = {row, row * static_cast<cuuint64_t>(kv.kv_heads)};
  const cuuint32_t box[3] = {64, 1, static_cast<cuuint32_t>(box_tokens)}, steps[3] = {1, 1, 1};
  CUtensorMap map;
  static const EncodeTiled encode = encode_tiled();
  const CUresult result = encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, data, extents, strides, box, steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw core::Error("CUDA: tensor map of a KV cache: driver error " + std::to_string(static_cast<int>(result)));
  return map;
}

}  // namespace drydock::kernels::cuda
