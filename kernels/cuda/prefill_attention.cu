#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/cuda/attention_accumulator.cuh"
#include "kernels/cuda/attention_check.h"
#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/attention_work.h"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/prefill_attention_sm90.h"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {
namespace {

constexpr const char* kOp = "prefill attention";
constexpr int kWarps = 4, kThreads = kWarps * kWarp;

// 96 KiB of shared memory at most, which every architecture has.
template <int kDim, typename Element>
struct Shape {
  static constexpr PrefillTileShape kTile = prefill_tile_shape(kDim, sizeof(Element) == 1, PrefillPath::any);
  static constexpr int kKeyDim = kDim, kValueDim = kDim;
  static constexpr int kRows = kTile.rows, kTokens = kTile.tokens;
  static constexpr int kWarpRows = kRows / kWarps, kRowTiles = kWarpRows / 16;
  // Registers are short at 128 dims: overlapping more steps would spill.
  static constexpr int kUnroll = kDim == 128 ? 2 / kKeySteps<Element> : kDim / 16;
  static constexpr int kTileBytes = kTokens * Tile<kDim, Element>::kRowBytes;
  static constexpr int kQueryBytes = kRows * kDim * 2;
  static constexpr int kSlotsAt = kQueryBytes + 4 * kTileBytes;
  static constexpr int kSharedBytes = kSlotsAt + 2 * kTokens * static_cast<int>(sizeof(int64_t));
  static constexpr int kBlocksPerSm = kDim == 64 ? 2 : 1;
};

// Copies of a block's rows and tokens into shared memory: queries, then two stages of keys and values, then where the
// tokens of two tiles lie.
template <int kDim, typename Element>
class Copies {
  using S = Shape<kDim, Element>;
  using T = Tile<kDim, Element>;

 public:
  __device__ Copies(const PrefillArguments& args, const PrefillTile& tile, TokenSpan span, unsigned char* shared)
      : args_(args), tile_(tile), span_(span), shared_(shared) {}

  __device__ int tiles() const { return (span_.last - span_.first + S::kTokens - 1) / S::kTokens; }
  __device__ int first_token(int tile) const { return span_.first + tile * S::kTokens; }
  __device__ const unsigned char* keys(int tile) const {
    return shared_ + S::kQueryBytes + tile % 2 * 2 * S::kTileBytes;
  }
  __device__ const unsigned char* values(int tile) const { return keys(tile) + S::kTileBytes; }

  __device__ __forceinline__ void fetch_queries() {
    using Q = Tile<kDim, Bf16>;
    for (int i = static_cast<int>(threadIdx.x); i < S::kRows * Q::kChunks; i += kThreads) {
      const int row = i / Q::kChunks, chunk = i % Q::kChunks;
      const bool valid = row < tile_.rows;
      const int64_t from = valid ? tile_.place(args_, row) * Q::kRowBytes + chunk * 16 : 0;
      copy_async_16(shared_ + Q::offset(row, chunk), args_.q + from, valid);
    }
  }

  // Looks up where a tile's tokens lie [bytes into the cache, -1 beyond the span]; seen after the next barrier.
  __device__ __forceinline__ void look_up(int tile) {
    const int row = static_cast<int>(threadIdx.x), token = first_token(tile) + row;
    if (row >= S::kTokens || tile >= tiles()) return;
    int64_t offset = -1;
    if (token < span_.last) {
      const int64_t block = args_.blocks[tile_.sequence * args_.blocks_per_sequence + (token >> args_.block_shift)];
      const int64_t slot = (block << args_.block_shift) + (token & ((1 << args_.block_shift) - 1));
      offset = (slot * args_.kv_heads + tile_.kv_head) * T::kRowBytes;
    }
    slots()[tile % 2 * S::kTokens + row] = offset;
  }

  // Starts the copies of a tile that was looked up, if there is such a tile; a group of its own either way.
  __device__ __forceinline__ void fetch(int tile) {
    if (tile < tiles()) {
      unsigned char* const to = shared_ + S::kQueryBytes + tile % 2 * 2 * S::kTileBytes;
#pragma unroll 4
      for (int i = 0; i < S::kTokens * T::kChunks / kThreads; ++i) {
        const int index = i * kThreads + static_cast<int>(threadIdx.x), row = index / T::kChunks;
        const int chunk = index % T::kChunks;
        const int64_t slot = slots()[tile % 2 * S::kTokens + row];
        const int64_t from = slot < 0 ? 0 : slot + chunk * 16;
        copy_async_16(to + T::offset(row, chunk), args_.k + from, slot >= 0);
        copy_async_16(to + S::kTileBytes + T::offset(row, chunk), args_.v + from, slot >= 0);
      }
    }
    copy_async_commit();
  }

 private:
  __device__ int64_t* slots() const { return reinterpret_cast<int64_t*>(shared_ + S::kSlotsAt); }

  const PrefillArguments& args_;
  const PrefillTile& tile_;
  TokenSpan span_;
  unsigned char* shared_;
};

template <int kDim, typename Element>
__global__ void __launch_bounds__(kThreads, Shape<kDim, Element>::kBlocksPerSm)
    prefill_kernel(const PrefillArguments args) {
  using S = Shape<kDim, Element>;
  DRYDOCK_DYNAMIC_SHARED(shared);
  dependency_wait();
  const PrefillTile tile = tile_of_block(args, S::kRows);
  if (tile.rows <= 0) return;
  Copies<kDim, Element> copies(args, tile, span_of(tile, args.window), shared);
  copies.look_up(0);
  copies.fetch_queries();
  sync_block();
  copies.fetch(0);
  copies.look_up(1);
  Accumulator<S, Element> mine;
  const int tiles = copies.tiles();
  for (int i = 0; i < tiles; ++i) {
    copy_async_wait<0>();
    sync_block();  // tile i is here for all, and all are done with tile i - 1
    copies.fetch(i + 1);
    copies.look_up(i + 2);
    mine.add_tile(shared, copies.keys(i), copies.values(i), tile, args.window, copies.first_token(i), args.logit_scale);
  }
  dependency_launch();
  const auto factor = [&](int row, float top, float sum) { return row_factor(args, tile.head(row), top, sum); };
  mine.write(shared, tile.rows, factor, [&](int row) { return args.out + tile.place(args, row) * kDim * 2; });
}

void check_op(const PrefillAttention& op) {
  check_kv(op.kv, op.heads, kOp);
  check_numbers(op.dtype, op.scale, kOp);
  check_grid(op.batch, "batch", kOp);
  check_grid(op.kv.kv_heads, "kv_heads", kOp);
}

template <int kDim, typename Element>
void start(const PrefillAttention& op, Stream stream) {
  using S = Shape<kDim, Element>;
  const PrefillArguments args = prefill_arguments(op);
  LaunchShape shape{.threads = kThreads, .programmatic = true};
  shape.grid_x = static_cast<unsigned>((op.most_new * args.group + S::kRows - 1) / S::kRows);
  shape.grid_y = static_cast<unsigned>(op.kv.kv_heads);
  shape.grid_z = static_cast<unsigned>(op.batch);
  shape.shared_bytes = S::kSharedBytes;
  launch(prefill_kernel<kDim, Element>, shape, stream, args);
}

}  // namespace

PrefillArguments prefill_arguments(const PrefillAttention& op) {
  PrefillArguments args;
  args.q = static_cast<const unsigned char*>(op.q);
  args.out = static_cast<unsigned char*>(op.out);
  args.k = static_cast<const unsigned char*>(op.kv.k);
  args.v = static_cast<const unsigned char*>(op.kv.v);
  args.blocks = op.kv.blocks;
  args.starts = op.starts;
  args.contexts = op.contexts;
  args.sinks = op.sinks;
  args.blocks_per_sequence = op.kv.blocks_per_sequence;
  while (1 << args.block_shift < op.kv.block_tokens) ++args.block_shift;
  args.heads = static_cast<int>(op.heads);
  args.kv_heads = static_cast<int>(op.kv.kv_heads);
  args.group = static_cast<int>(op.heads / op.kv.kv_heads);
  args.window = static_cast<int>(op.window);
  args.logit_scale = op.scale * op.kv.k_scale * kLog2E;
  args.value_scale = op.kv.v_scale;
  return args;
}

bool can_prefill(const PrefillAttention& op, PrefillPath path) {
  return path == PrefillPath::any || can_prefill_sm90(op);
}

void prefill_attention(const PrefillAttention& op, Stream stream, PrefillPath path) {
  check_op(op);
  if (op.batch == 0 || op.tokens == 0 || op.most_new == 0) return;
  if (path == PrefillPath::hopper) {
    if (!can_prefill_sm90(op))
      throw core::Error(std::string(kOp) + ": wgmma and TMA need sm_90a, a bf16 cache and blocks of 8 to 256 tokens");
    prefill_attention_sm90(op, stream);
    return;
  }
  const bool fp8 = op.kv.dtype == core::Dtype::fp8;
  if (op.kv.head_dim == 64) return fp8 ? start<64, Fp8>(op, stream) : start<64, Bf16>(op, stream);
  if (op.kv.head_dim == 128) return fp8 ? start<128, Fp8>(op, stream) : start<128, Bf16>(op, stream);
  return fp8 ? start<256, Fp8>(op, stream) : start<256, Bf16>(op, stream);
}

}  // namespace drydock::kernels::cuda
