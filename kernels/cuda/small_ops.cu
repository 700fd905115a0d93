#include <type_traits>

#include "kernels/cuda/row_launch.h"
#include "kernels/cuda/small_ops.h"

namespace drydock::kernels::cuda {
namespace {

// One block a token. The rounded sum stays in registers between the two passes over the row.
template <int Pieces>
__global__ void __launch_bounds__(most_threads(Pieces))
    add_rms_norm_kernel(const Bf16* x, int64_t x_stride, Bf16* residual, int64_t residual_stride, const Bf16* weight,
                        RowOut out, int64_t cols, float epsilon, bool aligned) {
  DRYDOCK_DYNAMIC_SHARED(bytes);
  float* const scratch = reinterpret_cast<float*>(bytes);
  const int64_t row = blockIdx.x;
  Bf16* const sums = residual + row * residual_stride;
  Columns columns[Pieces];
  float squares = 0;
  dependency_wait();
#pragma unroll
  for (int i = 0; i < Pieces; ++i) {
    const int64_t column = column_of(0, i);
    if (Pieces > 2) keep_order();
    columns[i] = load_columns(sums, column, cols, aligned);
    if (x != nullptr) {
      const Columns added = load_columns(x + row * x_stride, column, cols, aligned);
#pragma unroll
      for (int j = 0; j < kColumns; ++j)
        columns[i].values[j] = to_float(to_bf16(columns[i].values[j] + added.values[j]));
      store_columns(sums, column, cols, aligned, columns[i]);
    }
#pragma unroll
    for (int j = 0; j < kColumns; ++j) squares += columns[i].values[j] * columns[i].values[j];
  }
  dependency_launch();
  const float factor = reciprocal_sqrt(block_sum(squares, scratch) / static_cast<float>(cols) + epsilon);
#pragma unroll
  for (int i = 0; i < Pieces; ++i) {
    if (Pieces > 2) keep_order();
    const Columns weights = load_columns(weight, column_of(0, i), cols, aligned);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) columns[i].values[j] *= factor * weights.values[j];
  }
  store_row(out, row, 0, cols, columns, scratch);
}

template <int Pieces>
__global__ void __launch_bounds__(most_threads(Pieces))
    silu_mul_kernel(const Bf16* x, int64_t x_stride, RowOut out, int64_t width, bool aligned) {
  DRYDOCK_DYNAMIC_SHARED(bytes);
  const int64_t row = blockIdx.x;
  const int64_t first = static_cast<int64_t>(blockIdx.y) * blockDim.x * Pieces * kColumns;
  const Bf16* const gates = x + row * x_stride;
  Columns columns[Pieces];
  dependency_wait();
#pragma unroll
  for (int i = 0; i < Pieces; ++i) {
    if (Pieces > 2) keep_order();
    const int64_t column = column_of(first, i);
    columns[i] = load_columns(gates, column, width, aligned);
    const Columns ups = load_columns(gates + width, column, width, aligned);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const float gate = columns[i].values[j];
      columns[i].values[j] = fast_divide(gate, 1.0F + fast_exp(-fmaxf(gate, -80.0F))) * ups.values[j];
    }
  }
  dependency_launch();
  store_row(out, row, first, width, columns, reinterpret_cast<float*>(bytes));
}

template <typename T, int Pieces>
__global__ void __launch_bounds__(most_threads(Pieces))
    quantize_kernel(const T* x, int64_t x_stride, RowOut out, int64_t cols, bool aligned) {
  DRYDOCK_DYNAMIC_SHARED(bytes);
  const int64_t row = blockIdx.x;
  const int64_t first = static_cast<int64_t>(blockIdx.y) * blockDim.x * Pieces * kColumns;
  Columns columns[Pieces];
  dependency_wait();
#pragma unroll
  for (int i = 0; i < Pieces; ++i) columns[i] = load_columns(x + row * x_stride, column_of(first, i), cols, aligned);
  dependency_launch();
  store_row(out, row, first, cols, columns, reinterpret_cast<float*>(bytes));
}

__global__ void __launch_bounds__(256)
    embed_kernel(const Bf16* table, int64_t table_stride, int64_t vocabulary, const int32_t* ids, Bf16* out,
                 int64_t out_stride, int64_t cols, bool aligned) {
  const int64_t row = blockIdx.x;
  dependency_wait();
  const int64_t id = ids[row];
  const int64_t column = column_of(static_cast<int64_t>(blockIdx.y) * blockDim.x * kColumns, 0);
  Columns columns = {};
  if (id >= 0 && id < vocabulary) columns = load_columns(table + id * table_stride, column, cols, aligned);
  dependency_launch();
  store_columns(out + row * out_stride, column, cols, aligned, columns);
}

void check_equal(int64_t got, int64_t want, const char* what) {
  if (got != want)
    throw core::Error(std::string(what) + " is " + std::to_string(got) + "; " + std::to_string(want) + " is right");
}

// Calls `start` with the number of pieces that a thread holds as a constant: 1, 2 or 4.
template <typename Start>
void by_pieces(const RowShape& shape, const Start& start) {
  if (shape.pieces == 1) return start(std::integral_constant<int, 1>());
  if (shape.pieces == 2) return start(std::integral_constant<int, 2>());
  start(std::integral_constant<int, 4>());
}

template <typename T>
void start_quantize(const Quantize& op, const RowOut& out, Stream stream) {
  const RowShape shape = row_shape(op.x.cols, out.scaling == Scaling::row, "quantize");
  by_pieces(shape, [&](auto pieces) {
    launch(quantize_kernel<T, decltype(pieces)::value>, launch_shape(shape, op.x.rows), stream,
           static_cast<const T*>(op.x.data), op.x.stride, out, op.x.cols, is_aligned(op.x));
  });
}

}  // namespace

void add_rms_norm(const AddRmsNorm& op, Stream stream) {
  const int64_t rows = op.residual.rows, cols = op.residual.cols;
  if (rows <= 0 || cols <= 0) return;
  require_bf16(op.residual, "add_rms_norm: residual");
  const bool adds = op.x.data != nullptr;
  if (adds) require_bf16(op.x, "add_rms_norm: x");
  if (adds) check_equal(op.x.cols, cols, "add_rms_norm: x.cols");
  check_equal(op.out.cols, cols, "add_rms_norm: out.cols");
  const RowOut out = row_out(op.out, op.out_scales, "add_rms_norm");
  const RowShape shape = row_shape(cols, true, "add_rms_norm");
  const bool aligned =
      is_aligned(op.residual) && (!adds || is_aligned(op.x)) && reinterpret_cast<uintptr_t>(op.weight) % 16 == 0;
  by_pieces(shape, [&](auto pieces) {
    launch(add_rms_norm_kernel<decltype(pieces)::value>, launch_shape(shape, rows), stream,
           static_cast<const Bf16*>(op.x.data), op.x.stride, static_cast<Bf16*>(op.residual.data), op.residual.stride,
           static_cast<const Bf16*>(op.weight), out, cols, op.epsilon, aligned);
  });
}

void silu_mul(const SiluMul& op, Stream stream) {
  const int64_t rows = op.out.rows, width = op.out.cols;
  if (rows <= 0 || width <= 0) return;
  require_bf16(op.x, "silu_mul: x");
  check_equal(op.x.cols, 2 * width, "silu_mul: x.cols");
  const RowOut out = row_out(op.out, op.out_scales, "silu_mul");
  const RowShape shape = row_shape(width, out.scaling == Scaling::row, "silu_mul");
  const bool aligned = is_aligned(op.x) && width % kColumns == 0;
  by_pieces(shape, [&](auto pieces) {
    launch(silu_mul_kernel<decltype(pieces)::value>, launch_shape(shape, rows), stream,
           static_cast<const Bf16*>(op.x.data), op.x.stride, out, width, aligned);
  });
}

void quantize(const Quantize& op, Stream stream) {
  if (op.x.rows <= 0 || op.x.cols <= 0) return;
  const RowOut out = row_out(op.out, op.out_scales, "quantize");
  if (out.scaling == Scaling::none) throw core::Error("quantize: out is bf16; fp8 is right");
  check_equal(op.out.cols, op.x.cols, "quantize: out.cols");
  if (op.x.dtype == core::Dtype::fp32) return start_quantize<float>(op, out, stream);
  require_bf16(op.x, "quantize: x");
  start_quantize<Bf16>(op, out, stream);
}

void embed(const Embed& op, Stream stream) {
  if (op.out.rows <= 0 || op.out.cols <= 0) return;
  require_bf16(op.table, "embed: table");
  require_bf16(op.out, "embed: out");
  check_equal(op.out.cols, op.table.cols, "embed: out.cols");
  const RowShape shape = row_shape(op.out.cols, false, "embed");
  launch(embed_kernel, launch_shape(shape, op.out.rows), stream, static_cast<const Bf16*>(op.table.data),
         op.table.stride, op.table.rows, op.ids, static_cast<Bf16*>(op.out.data), op.out.stride, op.out.cols,
         is_aligned(op.table) && is_aligned(op.out));
}

}  // namespace drydock::kernels::cuda
