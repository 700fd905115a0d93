#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/cuda/moe.h"
#include "kernels/cuda/row_launch.h"

namespace drydock::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// One block a sorted row; `bytes` of a row, in words of 16 where `aligned`.
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const uint8_t* in, int64_t in_stride, uint8_t* out, int64_t out_stride, int64_t bytes,
                  const int32_t* sources, const int32_t* row_count, int64_t top_k, bool aligned) {
  dependency_wait();
  const int64_t row = blockIdx.x;
  if (row >= *row_count) return;
  const uint8_t* const from = in + sources[row] / top_k * in_stride;
  uint8_t* const to = out + row * out_stride;
  const int64_t step = aligned ? 16 : 1;
  for (int64_t i = static_cast<int64_t>(threadIdx.x) * step; i < bytes; i += kThreads * step) {
    if (aligned)
      *reinterpret_cast<Word4*>(to + i) = *reinterpret_cast<const Word4*>(from + i);
    else
      to[i] = from[i];
  }
  dependency_launch();
}

// One block a token and 2048 columns.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    combine_kernel(const T* in, int64_t in_stride, Bf16* out, int64_t out_stride, int64_t cols, const int32_t* rows,
                   const float* weights, int top_k, bool aligned) {
  const int64_t token = blockIdx.x;
  const int64_t column = column_of(static_cast<int64_t>(blockIdx.y) * kThreads * kColumns, 0);
  Columns sums = {};
  dependency_wait();
  for (int choice = 0; choice < top_k; ++choice) {
    const int64_t row = rows[token * top_k + choice];
    if (row < 0) continue;
    const float weight = weights[token * top_k + choice];
    const Columns columns = load_columns(in + row * in_stride, column, cols, aligned);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) sums.values[j] += weight * columns.values[j];
  }
  dependency_launch();
  store_columns(out + token * out_stride, column, cols, aligned, sums);
}

}  // namespace

void gather(const Gather& op, Stream stream) {
  if (op.out.rows <= 0 || op.out.cols <= 0) return;
  if (op.in.dtype != op.out.dtype || op.in.cols != op.out.cols || op.in.scaling != Scaling::none)
    throw core::Error("gather: in and out have one dtype, as many columns and no scales");
  const int64_t element = op.in.dtype == core::Dtype::fp8 ? 1 : op.in.dtype == core::Dtype::bf16 ? 2 : 4;
  const auto divides = [&](const Matrix& m) {
    return reinterpret_cast<uintptr_t>(m.data) % 16 == 0 && m.stride * element % 16 == 0 && m.cols * element % 16 == 0;
  };
  const LaunchShape shape{.grid_x = static_cast<unsigned>(op.out.rows), .threads = kThreads, .programmatic = true};
  launch(gather_kernel, shape, stream, static_cast<const uint8_t*>(op.in.data), op.in.stride * element,
         static_cast<uint8_t*>(op.out.data), op.out.stride * element, op.in.cols * element, op.sources, op.row_count,
         op.top_k, divides(op.in) && divides(op.out));
}

void combine(const Combine& op, Stream stream) {
  if (op.out.rows <= 0 || op.out.cols <= 0) return;
  require_bf16(op.out, "combine: out");
  const LaunchShape shape{
      .grid_x = static_cast<unsigned>(op.out.rows),
      .grid_y = static_cast<unsigned>((op.out.cols + kThreads * kColumns - 1) / (kThreads * kColumns)),
      .threads = kThreads,
      .programmatic = true};
  const bool aligned = is_aligned(op.in) && is_aligned(op.out);
  const auto start = [&](auto kernel, auto* in) {
    launch(kernel, shape, stream, in, op.in.stride, static_cast<Bf16*>(op.out.data), op.out.stride, op.out.cols,
           op.rows, op.weights, static_cast<int>(op.top_k), aligned);
  };
  if (op.in.dtype == core::Dtype::fp32) return start(combine_kernel<float>, static_cast<const float*>(op.in.data));
  require_bf16(op.in, "combine: in");
  start(combine_kernel<Bf16>, static_cast<const Bf16*>(op.in.data));
}

}  // namespace drydock::kernels::cuda
