#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/cuda/product_operands.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/small_gemm.h"

namespace drydock::kernels::cuda {
namespace {

// The weights are the left operand of the tensor core's product (16 rows), the activations its right one (8 tokens at a
// time). The order of k inside a product does not matter as long as both operands have the same, so each lane loads 16
// neighbouring bytes of a weight row and of a token's row straight into its registers: words 0 and 1 feed one product,
// words 2 and 3 the next.
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kRows = 16;        // weight rows of a block
constexpr int kChunkBytes = 64;  // of each row that a warp reads with one load: 4 lanes x 16
constexpr int kChunks = 4;       // loads in flight
constexpr int kStepBytes = kChunks * kChunkBytes;
constexpr int kMostSplits = 8;

struct Operands : ProductOperands {
  float* partials;     // (tiles, splits, 16, tokens)
  uint32_t* counters;  // (tiles)
};

// Of one warp: kChunks chunks of two weight rows (of this lane's group, and 8 below).
struct Weights {
  Word4 words[kChunks][2];
};

__device__ __forceinline__ Weights load_weights(const Operands& op, int64_t row, int64_t at) {
  Weights out;
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t byte = at + c * kChunkBytes + lane_index() % 4 * 16;
      const bool inside = row + 8 * half < op.n && byte < op.row_bytes;
      out.words[c][half] = inside ? load_streaming(op.b + (row + 8 * half) * op.b_stride_bytes + byte) : Word4{};
    }
  return out;
}

template <bool kFp8>
__device__ __forceinline__ void multiply(float (&c)[4], const Weights& weights, int chunk, const Word4& tokens) {
  const Word4 &low = weights.words[chunk][0], &high = weights.words[chunk][1];
  const uint32_t first[4] = {low[0], high[0], low[1], high[1]}, second[4] = {low[2], high[2], low[3], high[3]};
  if constexpr (kFp8) {
    mma_fp8(c, first, tokens[0], tokens[1]);
    mma_fp8(c, second, tokens[2], tokens[3]);
  } else {
    mma_bf16(c, first, tokens[0], tokens[1]);
    mma_bf16(c, second, tokens[2], tokens[3]);
  }
}

// c += part * the scales of k's block `block`. A tile of 16 rows lies in one block of 128 rows.
__device__ __forceinline__ void add_scaled(const Operands& op, float (&c)[4], const float (&part)[4], int64_t tile_row,
                                           int64_t token, int64_t block) {
  const int64_t blocks = (op.row_bytes + 127) / 128;
  const float b_scale = op.b_scales[tile_row / 128 * blocks + block];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t t = token + i % 2;
    if (t < op.rows) c[i] += part[i] * (b_scale * op.a_scales[t * blocks + block]);
  }
}

__device__ __forceinline__ Word4 load_tokens(const Operands& op, int64_t token, int64_t byte) {
  const bool inside = token < op.rows && byte < op.row_bytes;
  return inside ? *reinterpret_cast<const Word4*>(op.a + token * op.a_stride_bytes + byte) : Word4{};
}

// One step of a warp along k, from byte `at` of a row on: kStepBytes of its weight rows.
template <bool kFp8, bool kBlockScales, int kTiles>
__device__ __forceinline__ void step(const Operands& op, float (&c)[kTiles][4], const Weights& weights, int64_t at,
                                     int64_t tile_row) {
  const int group = lane_index() / 4;
  const int pair = lane_index() % 4;
  float part[kTiles][4] = {};
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const int64_t byte = at + chunk * kChunkBytes;
    // Tiles inside: before sm_89 the weights are converted for each product.
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
      multiply<kFp8>(kBlockScales ? part[tile] : c[tile], weights, chunk,
                     load_tokens(op, tile * 8 + group, byte + pair * 16));
    if constexpr (kBlockScales) {
      const int64_t block = byte / 128;
      if (chunk % 2 == 0 || block * 128 >= op.row_bytes) continue;  // two chunks of 64 to a block
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        add_scaled(op, c[tile], part[tile], tile_row, tile * 8 + pair * 2, block);
        part[tile][0] = part[tile][1] = part[tile][2] = part[tile][3] = 0;
      }
    }
  }
}

__device__ __forceinline__ void write(const Operands& op, int64_t token, int64_t column, float value) {
  if (op.scaling == Scaling::tensor) value *= op.a_scales[0] * op.b_scales[0];
  if (op.scaling == Scaling::row) value *= op.a_scales[token] * op.b_scales[column];
  const int64_t at = token * op.out_stride + column;
  if (op.out_fp32)
    static_cast<float*>(op.out)[at] = value;
  else
    static_cast<Bf16*>(op.out)[at] = to_bf16(value);
}

// Adds up the tile of all blocks along k in the last of them to come; true there, with the sum in `value`.
__device__ __forceinline__ bool join_splits(const Operands& op, int tile_numbers, float& value, uint32_t* is_last) {
  const int64_t tile = blockIdx.x, splits = gridDim.y, at = threadIdx.x;
  float* const mine = op.partials + (tile * splits + blockIdx.y) * tile_numbers;
  if (at < tile_numbers) mine[at] = value;
  memory_fence();
  sync_block();
  if (threadIdx.x == 0) {
    *is_last = atomic_add(&op.counters[tile], 1U) + 1 == splits ? 1 : 0;
    if (*is_last != 0) op.counters[tile] = 0;
  }
  sync_block();
  if (*is_last == 0) return false;
  memory_fence();
  value = 0;
  const volatile float* const all = op.partials + tile * splits * tile_numbers;
  if (at < tile_numbers)
    for (int64_t s = 0; s < splits; ++s) value += all[s * tile_numbers + at];
  return true;
}

// grid: x tiles of 16 weight rows, y parts of k. kTiles: groups of 8 tokens.
template <bool kFp8, bool kBlockScales, int kTiles>
__global__ void __launch_bounds__(kThreads, 1) small_gemm_kernel(Operands op) {
  DRYDOCK_DYNAMIC_SHARED(bytes);
  float* const sums = reinterpret_cast<float*>(bytes);  // (kWarps, kTiles * 8 tokens, 16 rows)
  constexpr int kNumbers = kTiles * 8 * kRows;
  const int group = lane_index() / 4, pair = lane_index() % 4;
  const int64_t tile_row = static_cast<int64_t>(blockIdx.x) * kRows;
  const int64_t stride = static_cast<int64_t>(gridDim.y) * kWarps * kStepBytes;
  int64_t at = (static_cast<int64_t>(blockIdx.y) * kWarps + warp_index()) * kStepBytes;
  float c[kTiles][4] = {};
  Weights weights = load_weights(op, tile_row + group, at);
  dependency_wait();
  for (; at < op.row_bytes; at += stride) {
    const Weights next = load_weights(op, tile_row + group, at + stride);
    step<kFp8, kBlockScales, kTiles>(op, c, weights, at, tile_row);
    weights = next;
  }
  dependency_launch();
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = tile * 8 + pair * 2 + i % 2, row = group + i / 2 * 8;
      sums[warp_index() * kNumbers + token * kRows + row] = c[tile][i];
    }
  sync_block();
  const int number = static_cast<int>(threadIdx.x);
  float value = 0;
  if (number < kNumbers)
    for (int warp = 0; warp < kWarps; ++warp) value += sums[warp * kNumbers + number];
  auto* const is_last = reinterpret_cast<uint32_t*>(sums + kWarps * kNumbers);
  if (gridDim.y > 1 && !join_splits(op, kNumbers, value, is_last)) return;
  const int64_t token = number / kRows, column = tile_row + number % kRows;
  if (number < kNumbers && token < op.rows && column < op.n) write(op, token, column, value);
}

int64_t tokens_of_tiles(int64_t m) { return m <= 8 ? 8 : 16; }

template <bool kFp8, bool kBlockScales>
void start(const Operands& op, int64_t splits, Stream stream) {
  const int64_t tokens = tokens_of_tiles(op.rows);
  const LaunchShape shape{.grid_x = static_cast<unsigned>((op.n + kRows - 1) / kRows),
                          .grid_y = static_cast<unsigned>(splits),
                          .threads = kThreads,
                          .shared_bytes = static_cast<size_t>(kWarps * tokens * kRows) * sizeof(float) + 16,
                          .programmatic = true};
  if (tokens == 8)
    launch(small_gemm_kernel<kFp8, kBlockScales, 1>, shape, stream, op);
  else
    launch(small_gemm_kernel<kFp8, kBlockScales, 2>, shape, stream, op);
}

int64_t splits_of(const Gemm& op) {
  const int64_t tiles = (op.b.rows + kRows - 1) / kRows;
  if (tiles > kCounters) return 1;
  return small_gemm_splits(op.b.rows, op.b.cols * element_bytes(op.b), multiprocessors());
}

}  // namespace

bool fits_small_gemm(const Gemm& op) {
  return is_known_product(op.a, op.b, op.out) && op.a.rows <= kSmallGemmRows && has_whole_pieces(op.a) &&
         has_whole_pieces(op.b);
}

int64_t small_gemm_splits(int64_t n, int64_t row_bytes, int sms) {
  constexpr int64_t kLeastBytes = kWarps * kStepBytes;  // one step of every warp
  const int64_t tiles = std::max<int64_t>(1, (n + kRows - 1) / kRows);
  const int64_t wanted = (2 * static_cast<int64_t>(sms) + tiles - 1) / tiles;
  return std::clamp<int64_t>(std::min(wanted, row_bytes / kLeastBytes), 1, kMostSplits);
}

size_t small_gemm_workspace_bytes(const Gemm& op) {
  const int64_t splits = splits_of(op), tiles = (op.b.rows + kRows - 1) / kRows;
  if (splits == 1) return 0;
  return static_cast<size_t>(splits * tiles * kRows * tokens_of_tiles(op.a.rows)) * sizeof(float);
}

void small_gemm(const Gemm& gemm, const Workspace& workspace, Stream stream) {
  if (gemm.a.rows <= 0 || gemm.b.rows <= 0) return;
  if (!fits_small_gemm(gemm))
    throw core::Error("small_gemm: more than 16 rows, or dtypes or alignment that it does not know");
  if (workspace.size < small_gemm_workspace_bytes(gemm))
    throw core::Error("small_gemm: the workspace has " + std::to_string(workspace.size) + " bytes; " +
                      std::to_string(small_gemm_workspace_bytes(gemm)) + " are needed");
  const Operands op{product_operands(gemm.a, gemm.b, gemm.out, gemm.b.rows), static_cast<float*>(workspace.bytes),
                    workspace.counters};
  const int64_t splits = splits_of(gemm);
  if (gemm.a.dtype == core::Dtype::bf16) return start<false, false>(op, splits, stream);
  if (op.scaling == Scaling::block) return start<true, true>(op, splits, stream);
  start<true, false>(op, splits, stream);
}

}  // namespace drydock::kernels::cuda
