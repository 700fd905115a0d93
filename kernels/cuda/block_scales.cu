#include "kernels/cuda/block_scales.h"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// Neighbouring threads write neighbours; what they read is small enough for the caches.
__global__ void __launch_bounds__(kThreads)
    transpose_kernel(const float* from, float* to, int64_t rows, int64_t cols, int64_t to_stride) {
  dependency_wait();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, col = blockIdx.y;
  if (row < rows) to[col * to_stride + row] = from[row * cols + col];
}

__global__ void __launch_bounds__(kThreads)
    pad_kernel(const float* from, float* to, int64_t rows, int64_t cols, int64_t to_stride) {
  dependency_wait();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, row = i / to_stride;
  if (row < rows) to[i] = i % to_stride < cols ? from[row * cols + i % to_stride] : 0.0F;
}

unsigned blocks_of(int64_t count) { return static_cast<unsigned>((count + kThreads - 1) / kThreads); }

}  // namespace

void transpose_scales(const float* from, float* to, int64_t rows, int64_t cols, int64_t to_stride, Stream stream) {
  const LaunchShape shape{
      .grid_x = blocks_of(rows), .grid_y = static_cast<unsigned>(cols), .threads = kThreads, .programmatic = true};
  launch(transpose_kernel, shape, stream, from, to, rows, cols, to_stride);
}

void pad_scales(const float* from, float* to, int64_t rows, int64_t cols, int64_t to_stride, Stream stream) {
  const LaunchShape shape{.grid_x = blocks_of(rows * to_stride), .threads = kThreads, .programmatic = true};
  launch(pad_kernel, shape, stream, from, to, rows, cols, to_stride);
}

}  // namespace drydock::kernels::cuda
