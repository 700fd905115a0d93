#pragma once
// Block scales as cuBLASLt wants them, from those of kernels/matrix.h.
#include <cstdint>

#include "kernels/cuda/stream.h"

namespace drydock::kernels::cuda {

// to (cols, to_stride): to[c][r] = from[r][c] of (rows, cols). Device; asynchronous.
void transpose_scales(const float* from, float* to, int64_t rows, int64_t cols, int64_t to_stride, Stream stream);

// to (rows, to_stride): the first `cols` of each row from (rows, cols), zeros behind.
void pad_scales(const float* from, float* to, int64_t rows, int64_t cols, int64_t to_stride, Stream stream);

}  // namespace drydock::kernels::cuda
