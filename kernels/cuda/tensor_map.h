#pragma once
// How TMA reads a matrix: maps that the driver encodes.
#include <cuda.h>

#include <string>

#include "core/error.h"
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

// `dims` extents, boxes of 128 bytes a row, swizzled; what lies outside reads as zeros. `strides` are those of all
// extents but the first [bytes, multiples of 16]. `what` is named in the error.
inline CUtensorMap tensor_map(CUtensorMapDataType type, cuuint32_t dims, void* data, const cuuint64_t* extents,
                              const cuuint64_t* strides, const cuuint32_t* box, const char* what) {
  constexpr cuuint32_t kSteps[3] = {1, 1, 1};
  CUtensorMap map;
  static const EncodeTiled encode = encode_tiled();
  const CUresult result =
      encode(&map, type, dims, data, extents, strides, box, kSteps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw core::Error(std::string("CUDA: tensor map of ") + what + ": driver error " +
                      std::to_string(static_cast<int>(result)));
  return map;
}

}  // namespace drydock::kernels::cuda
