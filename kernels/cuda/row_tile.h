#pragma once
// A row of a matrix spread over a thread block: thread t holds the 8 neighbouring columns at (i * threads + t) * 8, so
// that 16 lanes hold one 128-column block of scales. Used by the fused row ops; device code only.
#include <cstdint>

#include "kernels/cuda/eight.h"
#include "kernels/cuda/simt.h"
#include "kernels/matrix.h"

namespace drydock::kernels::cuda {

inline constexpr int kColumns = 8;  // of a thread, neighbours
// Of a block whose threads hold `pieces` times 8 columns: with 4, more threads would not have the registers.
constexpr int most_threads(int pieces) { return pieces > 2 ? 896 : 1024; }
inline constexpr int64_t kMostColumns = int64_t{4} * kColumns * most_threads(4);  // of a row in one block
inline constexpr int64_t kBlockColumns = 128;                                     // that share a scale

using Columns = Eight;
static_assert(sizeof(Columns) == kColumns * sizeof(float));

// First column of piece `piece` of this thread, of a row that starts at `first`.
__device__ __forceinline__ int64_t column_of(int64_t first, int piece) {
  return first + (static_cast<int64_t>(piece) * blockDim.x + threadIdx.x) * kColumns;
}

// `aligned`: rows start at multiples of 16 bytes and have a multiple of 8 columns. Columns beyond `cols` are zeros.
__device__ __forceinline__ Columns load_columns(const Bf16* row, int64_t column, int64_t cols, bool aligned) {
  Columns out = {};
  if (column >= cols) return out;
  if (aligned) return load_eight(row + column);
#pragma unroll
  for (int j = 0; j < kColumns; ++j)
    if (column + j < cols) out.values[j] = to_float(row[column + j]);
  return out;
}
__device__ __forceinline__ Columns load_columns(const float* row, int64_t column, int64_t cols, bool aligned) {
  Columns out = {};
  if (column >= cols) return out;
  if (aligned) return load_eight(row + column);
#pragma unroll
  for (int j = 0; j < kColumns; ++j)
    if (column + j < cols) out.values[j] = row[column + j];
  return out;
}

__device__ __forceinline__ void store_columns(Bf16* row, int64_t column, int64_t cols, bool aligned,
                                              const Columns& columns) {
  if (column >= cols) return;
  if (aligned) return store_eight(row + column, columns);
#pragma unroll
  for (int j = 0; j < kColumns; ++j)
    if (column + j < cols) row[column + j] = to_bf16(columns.values[j]);
}
// Each value times `factor`.
__device__ __forceinline__ void store_columns(Fp8* row, int64_t column, int64_t cols, bool aligned,
                                              const Columns& columns, float factor) {
  if (column >= cols) return;
  if (aligned) return store_eight(row + column, columns, factor);
#pragma unroll
  for (int j = 0; j < kColumns; ++j)
    if (column + j < cols) row[column + j] = to_fp8(columns.values[j] * factor);
}

__device__ __forceinline__ float largest_magnitude(const Columns& columns) {
  float largest = 0;
#pragma unroll
  for (int j = 0; j < kColumns; ++j) largest = fmaxf(largest, fabsf(columns.values[j]));
  return largest;
}

// What numbers are multiplied with so that `largest` becomes fp8's largest; their scale is largest / 448.
__device__ __forceinline__ float quantizing_factor(float largest) { return largest > 0 ? kLargestFp8 / largest : 0.0F; }

// Where a fused op puts its row.
struct RowOut {
  void* data;
  float* scales;
  int64_t stride;
  Scaling scaling;  // none: bf16
  bool aligned;
};

// Writes one row (or one tile of it, from column `first` on, for which Scaling::row does not work). All threads of the
// block call; scratch is (32) floats of shared memory.
template <int Pieces>
__device__ __forceinline__ void store_row(const RowOut& out, int64_t row, int64_t first, int64_t cols,
                                          const Columns (&columns)[Pieces], float* scratch) {
  if (out.scaling == Scaling::none) {
    Bf16* const to = static_cast<Bf16*>(out.data) + row * out.stride;
#pragma unroll
    for (int i = 0; i < Pieces; ++i) store_columns(to, column_of(first, i), cols, out.aligned, columns[i]);
    return;
  }
  Fp8* const to = static_cast<Fp8*>(out.data) + row * out.stride;
  if (out.scaling == Scaling::row) {
    float largest = 0;
#pragma unroll
    for (int i = 0; i < Pieces; ++i) largest = fmaxf(largest, largest_magnitude(columns[i]));
    largest = block_max(largest, scratch);
    if (threadIdx.x == 0) out.scales[row] = largest / kLargestFp8;
#pragma unroll
    for (int i = 0; i < Pieces; ++i)
      store_columns(to, column_of(first, i), cols, out.aligned, columns[i], quantizing_factor(largest));
    return;
  }
  const int64_t blocks = (cols + kBlockColumns - 1) / kBlockColumns;
#pragma unroll
  for (int i = 0; i < Pieces; ++i) {
    const int64_t column = column_of(first, i);
    const float largest = warp_max<16>(largest_magnitude(columns[i]));
    if (threadIdx.x % 16 == 0 && column < cols)
      out.scales[row * blocks + column / kBlockColumns] = largest / kLargestFp8;
    store_columns(to, column, cols, out.aligned, columns[i], quantizing_factor(largest));
  }
}

}  // namespace drydock::kernels::cuda
