#pragma once
// The tiles of a grouped product, whichever instructions compute them: which there are, in what order blocks take them,
// and how their numbers reach the output.
#include <cstdint>

#include "kernels/cuda/product_operands.h"
#include "kernels/cuda/simt.h"
#include "kernels/gemm.h"

namespace drydock::kernels::cuda {

struct GroupedOperands : ProductOperands {
  const int32_t* starts;  // null: one group of all rows
  int64_t groups;
  bool out_pairs;  // two bf16 at an even column can be stored at once
};

inline GroupedOperands grouped_operands(const GroupedGemm& gemm) {
  return {product_operands(gemm.a, gemm.b, gemm.out, gemm.out.cols), gemm.starts, gemm.groups,
          gemm.out.stride % 2 == 0 && reinterpret_cast<uintptr_t>(gemm.out.data) % 4 == 0};
}

// Where a tile lies.
struct GroupTile {
  int64_t group, first_row, end_row, first_column;
};

// Walks over the tiles of all groups in order; each block takes every gridDim.x-th of them.
struct GroupWalk {
  int64_t group = 0, group_begin = 0;  // the group that the last tile was in, and the number of its first tile
};

// Tiles go down the rows of a group first, so that blocks that run together share its weights in L2.
template <int kRows, int kColumns>
__device__ __forceinline__ bool find_tile(const GroupedOperands& op, int64_t number, GroupWalk& walk, GroupTile& tile) {
  const int64_t across = (op.n + kColumns - 1) / kColumns;
  for (; walk.group < op.groups; ++walk.group) {
    const int64_t first = op.starts == nullptr ? 0 : op.starts[walk.group];
    const int64_t end = op.starts == nullptr ? op.rows : op.starts[walk.group + 1];
    const int64_t down = (end - first + kRows - 1) / kRows, at = number - walk.group_begin;
    if (at < down * across) {
      tile = {walk.group, first + at % down * kRows, end, at / down * kColumns};
      return true;
    }
    walk.group_begin += down * across;
  }
  return false;
}

// Two neighbours in a row of the product, of which those outside the tile's group are dropped.
__device__ __forceinline__ void write_pair(const GroupedOperands& op, const GroupTile& tile, int64_t row,
                                           int64_t column, float even, float odd) {
  if (row >= tile.end_row || column >= op.n) return;
  const bool both = column + 1 < op.n;
  if (op.scaling == Scaling::tensor) {
    even *= op.a_scales[0] * op.b_scales[0];
    odd *= op.a_scales[0] * op.b_scales[0];
  }
  if (op.scaling == Scaling::row) {
    const float* const b_scales = op.b_scales + tile.group * op.n + column;
    even *= op.a_scales[row] * b_scales[0];
    if (both) odd *= op.a_scales[row] * b_scales[1];
  }
  const int64_t at = row * op.out_stride + column;
  if (op.out_fp32) {
    static_cast<float*>(op.out)[at] = even;
    if (both) static_cast<float*>(op.out)[at + 1] = odd;
  } else if (both && op.out_pairs) {
    *reinterpret_cast<uint32_t*>(static_cast<Bf16*>(op.out) + at) = pack_bf16(even, odd);
  } else {
    static_cast<Bf16*>(op.out)[at] = to_bf16(even);
    if (both) static_cast<Bf16*>(op.out)[at + 1] = to_bf16(odd);
  }
}

}  // namespace drydock::kernels::cuda
