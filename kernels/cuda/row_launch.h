#pragma once
// Host side of the fused row ops: which kernels can take which matrices, and how a row is cut into threads.
#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/cuda/row_tile.h"
#include "kernels/matrix.h"

namespace drydock::kernels::cuda {

// Vector loads of 16 bytes (8 for fp8) are possible: addresses, strides and columns are multiples of 8 elements.
inline bool is_aligned(const Matrix& matrix) {
  return reinterpret_cast<uintptr_t>(matrix.data) % 16 == 0 && matrix.stride % kColumns == 0 &&
         matrix.cols % kColumns == 0;
}

inline void require_bf16(const Matrix& matrix, const char* what) {
  if (matrix.dtype != core::Dtype::bf16)
    throw core::Error(std::string(what) + " is " + std::string(core::name(matrix.dtype)) + "; bf16 is right on a GPU");
}

// Throws unless it is bf16, or fp8 with row or block scales and a place for them.
inline RowOut row_out(const Matrix& out, float* scales, const char* what) {
  if (out.dtype == core::Dtype::bf16) return {out.data, nullptr, out.stride, Scaling::none, is_aligned(out)};
  const bool scaled = out.scaling == Scaling::row || out.scaling == Scaling::block;
  if (out.dtype != core::Dtype::fp8 || !scaled || scales == nullptr)
    throw core::Error(std::string(what) + ": out is neither bf16 nor fp8 with out_scales by row or block");
  return {out.data, scales, out.stride, out.scaling, is_aligned(out)};
}

// `pieces` of 8 columns a thread, `threads` a block; a block does `tile` columns from blockIdx.y * tile on.
struct RowShape {
  int pieces = 1;
  unsigned threads = 32, tiles = 1;
  int64_t tile = 0;
};

// `whole`: a block must see the whole row, which then has at most 28672 columns (core::Error beyond).
inline RowShape row_shape(int64_t cols, bool whole, const char* what) {
  const int64_t vectors = (cols + kColumns - 1) / kColumns;
  if (cols > kMostColumns && whole)
    throw core::Error(std::string(what) + ": rows have " + std::to_string(cols) + " columns; at most 28672 are right");
  RowShape shape;
  if (whole) shape.pieces = vectors <= most_threads(1) ? 1 : vectors <= 2 * most_threads(2) ? 2 : 4;
  // Without a need for more, 256 threads: the latency of a row is hidden by other blocks.
  const int64_t most = whole ? most_threads(shape.pieces) : 256;
  const int64_t threads = std::min(most, (vectors + shape.pieces - 1) / shape.pieces);
  shape.threads = static_cast<unsigned>((threads + 31) / 32 * 32);
  shape.tile = static_cast<int64_t>(shape.threads) * shape.pieces * kColumns;
  shape.tiles = static_cast<unsigned>((cols + shape.tile - 1) / shape.tile);
  return shape;
}

inline LaunchShape launch_shape(const RowShape& shape, int64_t rows) {
  return {.grid_x = static_cast<unsigned>(rows),
          .grid_y = shape.tiles,
          .threads = shape.threads,
          .shared_bytes = 32 * sizeof(float),
          .programmatic = true};
}

}  // namespace drydock::kernels::cuda
