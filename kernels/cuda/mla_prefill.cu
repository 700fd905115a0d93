#include <string>

#include "core/error.h"
#include "kernels/cuda/attention_accumulator.cuh"
#include "kernels/cuda/attention_check.h"
#include "kernels/cuda/mla_prefill.h"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {
namespace {

constexpr const char* kOp = "MLA prefill";
constexpr int kWarps = 4, kThreads = kWarps * kWarp;

// Shared memory: queries, then two stages of keys and values; 96 KiB at most, which every architecture has.
template <int kNope, int kRope, int kValue>
struct Shape {
  static constexpr int kNopeDim = kNope, kKeyDim = kNope + kRope, kValueDim = kValue;
  static constexpr int kRows = kValue > 128 ? 64 : 128, kTokens = 32;
  static constexpr int kWarpRows = kRows / kWarps, kRowTiles = kWarpRows / 16, kUnroll = 2;
  static constexpr int kSourceBytes = (kNope + kValue) * 2;  // of a token of a head in kv
  static constexpr int kKeyBytes = kTokens * kKeyDim * 2, kStageBytes = kKeyBytes + kTokens * kValueDim * 2;
  static constexpr int kQueryBytes = kRows * kKeyDim * 2;
  static constexpr int kSharedBytes = kQueryBytes + 2 * kStageBytes;
  static_assert(kSharedBytes <= 96 * 1024);
};

struct Arguments {
  const unsigned char* q = nullptr;
  unsigned char* out = nullptr;
  const unsigned char* kv = nullptr;
  const unsigned char* rope = nullptr;
  int64_t rope_stride_bytes = 0;
  const int32_t* starts = nullptr;
  const int32_t* key_starts = nullptr;
  int heads = 0;
  float logit_scale = 1;  // to units of log2
};

// Blocks (tile of rows, head, sequence). The last tiles, which have most to do, start first.
__device__ __forceinline__ PrefillTile tile_of_block(const Arguments& args, int tile_rows) {
  PrefillTile tile;
  tile.sequence = static_cast<int>(blockIdx.z);
  tile.kv_head = static_cast<int>(blockIdx.y);
  tile.group = 1;
  tile.start = args.starts[tile.sequence];
  const int fresh = args.starts[tile.sequence + 1] - tile.start;
  tile.cached = args.key_starts[tile.sequence + 1] - args.key_starts[tile.sequence] - fresh;
  tile.first_row = static_cast<int>(gridDim.x - 1 - blockIdx.x) * tile_rows;
  tile.rows = fresh - tile.first_row < tile_rows ? fresh - tile.first_row : tile_rows;
  return tile;
}

// A row's place in q and out, counted in heads.
__device__ __forceinline__ int64_t place_of(const Arguments& args, const PrefillTile& tile, int row) {
  return static_cast<int64_t>(tile.start + tile.first_row + row) * args.heads + tile.kv_head;
}

template <typename S>
__device__ __forceinline__ void fetch_queries(const Arguments& args, const PrefillTile& tile, unsigned char* shared) {
  using Q = Tile<S::kKeyDim, Bf16>;
  for (int i = static_cast<int>(threadIdx.x); i < S::kRows * Q::kChunks; i += kThreads) {
    const int row = i / Q::kChunks, chunk = i % Q::kChunks;
    const bool valid = row < tile.rows;
    const int64_t from = valid ? place_of(args, tile, row) * Q::kRowBytes + chunk * 16 : 0;
    copy_async_16(shared + Q::offset(row, chunk), args.q + from, valid);
  }
}

// Starts the copies of tokens [first, first + kTokens) of the sequence, zeros from `last` on; a group of its own.
template <typename S>
__device__ __forceinline__ void fetch(const Arguments& args, const PrefillTile& tile, int64_t first_key, int first,
                                      int last, unsigned char* stage) {
  using K = Tile<S::kKeyDim, Bf16>;
  using V = Tile<S::kValueDim, Bf16>;
  constexpr int kNopeChunks = S::kNopeDim / 8;
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < S::kTokens * K::kChunks; i += kThreads) {
    const int row = i / K::kChunks, chunk = i % K::kChunks;
    const bool valid = first + row < last;
    const int64_t key = valid ? first_key + first + row : 0;
    const unsigned char* const from = chunk < kNopeChunks
                                          ? args.kv + (key * args.heads + tile.kv_head) * S::kSourceBytes + chunk * 16
                                          : args.rope + key * args.rope_stride_bytes + (chunk - kNopeChunks) * 16;
    copy_async_16(stage + K::offset(row, chunk), from, valid);
  }
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < S::kTokens * V::kChunks; i += kThreads) {
    const int row = i / V::kChunks, chunk = i % V::kChunks;
    const bool valid = first + row < last;
    const int64_t key = valid ? first_key + first + row : 0;
    const int64_t from = (key * args.heads + tile.kv_head) * S::kSourceBytes + S::kNopeDim * 2 + chunk * 16;
    copy_async_16(stage + S::kKeyBytes + V::offset(row, chunk), args.kv + from, valid);
  }
}

template <typename S>
__global__ void __launch_bounds__(kThreads, 1) mla_prefill_kernel(const Arguments args) {
  DRYDOCK_DYNAMIC_SHARED(shared);
  dependency_wait();
  const PrefillTile tile = tile_of_block(args, S::kRows);
  if (tile.rows <= 0) return;
  const int64_t first_key = args.key_starts[tile.sequence];
  const int last = tile.end_of(tile.rows - 1), tiles = (last + S::kTokens - 1) / S::kTokens;
  fetch_queries<S>(args, tile, shared);
  fetch<S>(args, tile, first_key, 0, last, shared + S::kQueryBytes);
  copy_async_commit();
  Accumulator<S, Bf16> mine;
  for (int i = 0; i < tiles; ++i) {
    copy_async_wait<0>();
    sync_block();  // tile i is here for all, and all are done with tile i - 1
    unsigned char* const next = shared + S::kQueryBytes + (i + 1) % 2 * S::kStageBytes;
    if (i + 1 < tiles) fetch<S>(args, tile, first_key, (i + 1) * S::kTokens, last, next);
    copy_async_commit();
    const unsigned char* const here = shared + S::kQueryBytes + i % 2 * S::kStageBytes;
    mine.add_tile(shared, here, here + S::kKeyBytes, tile, 0, i * S::kTokens, args.logit_scale);
  }
  dependency_launch();
  const auto factor = [](int, float, float sum) { return sum == 0 ? 0.0F : 1 / sum; };
  mine.write(shared, tile.rows, factor,
             [&](int row) { return args.out + place_of(args, tile, row) * S::kValueDim * 2; });
}

template <typename S>
void start(const MlaPrefill& op, Stream stream) {
  const Arguments args{.q = static_cast<const unsigned char*>(op.q),
                       .out = static_cast<unsigned char*>(op.out),
                       .kv = static_cast<const unsigned char*>(op.kv),
                       .rope = static_cast<const unsigned char*>(op.k_rope),
                       .rope_stride_bytes = op.rope_stride * 2,
                       .starts = op.starts,
                       .key_starts = op.key_starts,
                       .heads = static_cast<int>(op.heads),
                       .logit_scale = op.scale * kLog2E};
  const LaunchShape shape{.grid_x = static_cast<unsigned>((op.most_new + S::kRows - 1) / S::kRows),
                          .grid_y = static_cast<unsigned>(op.heads),
                          .grid_z = static_cast<unsigned>(op.batch),
                          .threads = kThreads,
                          .shared_bytes = S::kSharedBytes,
                          .programmatic = true};
  launch(mla_prefill_kernel<S>, shape, stream, args);
}

[[noreturn]] void refuse(const std::string& what, const std::string& right) {
  throw core::Error(std::string(kOp) + ": " + what + "; " + right + " right");
}

}  // namespace

void mla_prefill(const MlaPrefill& op, Stream stream) {
  check_numbers(op.dtype, op.scale, kOp);
  check_grid(op.batch, "batch", kOp);
  check_grid(op.heads, "heads", kOp);
  if (op.rope_stride < op.rope || op.rope_stride % 8 != 0)
    refuse("rope_stride is " + std::to_string(op.rope_stride), "a multiple of 8, at least rope, is");
  const bool small = op.nope == 128 && op.rope == 64 && op.value_dim == 128;
  if (!small && !(op.nope == 192 && op.rope == 64 && op.value_dim == 256))
    refuse("nope " + std::to_string(op.nope) + ", rope " + std::to_string(op.rope) + " and value_dim " +
               std::to_string(op.value_dim),
           "128, 64 and 128, or 192, 64 and 256 are");
  if (op.batch == 0 || op.heads == 0 || op.tokens == 0 || op.most_new == 0) return;
  small ? start<Shape<128, 64, 128>>(op, stream) : start<Shape<192, 64, 256>>(op, stream);
}

}  // namespace drydock::kernels::cuda
