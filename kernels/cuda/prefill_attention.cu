#include <algorithm>
#include <string>

#include "core/error.h"
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
  static constexpr int kRows = kTile.rows, kTokens = kTile.tokens;
  static constexpr int kWarpRows = kRows / kWarps, kRowTiles = kWarpRows / 16;
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

// A fragment of queries: 16 rows from `row`, dims 16 step ... + 15.
template <int kDim, typename Element>
__device__ __forceinline__ void load_queries(uint32_t (&a)[4], const unsigned char* queries, int row, int step) {
  using Q = Tile<kDim, Bf16>;
  const int lane = lane_index();
  if constexpr (sizeof(Element) == 2) {
    load_matrix_x4(a, queries + row * Q::kRowBytes + Q::advance(Q::offset(lane % 16, lane / 16), 2 * step));
  } else {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // query_fragment adds 8 * pair bytes, which may be in the second chunk.
      const int pair = lane % 4, place = Q::offset(row + lane / 4 + 8 * half, 2 * step + pair / 2);
      query_fragment<Element>(a[half], a[half + 2], queries + place - pair / 2 * 16);
    }
  }
}

// Of one warp: its rows against a tile of tokens after the other.
template <int kDim, typename Element>
struct Accumulator {
  using S = Shape<kDim, Element>;
  static constexpr int kTokenTiles = S::kTokens / 8;
  float out[S::kRowTiles][kDim / 8][4] = {};
  OnlineSoftmax softmax[S::kRowTiles];

  __device__ __forceinline__ void score(float (&logits)[S::kRowTiles][kTokenTiles][4], const unsigned char* queries,
                                        const unsigned char* keys) const {
    constexpr int kSteps = kKeySteps<Element>;
    // Registers are short at 128 dims: overlapping more steps would spill.
#pragma unroll(kDim == 128 ? 2 / kSteps : kDim / 16)
    for (int step = 0; step < kDim / 16; step += kSteps) {
      uint32_t a[S::kRowTiles][kSteps][4];
#pragma unroll
      for (int i = 0; i < kSteps * S::kRowTiles; ++i)
        load_queries<kDim, Element>(a[i / kSteps][i % kSteps], queries, warp_index() * S::kWarpRows + i / kSteps * 16,
                                    step + i % kSteps);
#pragma unroll
      for (int t = 0; t < kTokenTiles / 2; ++t) {
        uint32_t b[kSteps][2][2];
        load_keys<kDim, Element>(b, keys, 16 * t, step / kSteps);
#pragma unroll
        for (int i = 0; i < 2 * kSteps * S::kRowTiles; ++i) {
          const int r = i / 2 / kSteps, k = i / 2 % kSteps, n = i % 2;
          mma_bf16(logits[r][2 * t + n], a[r][k], b[k][n][0], b[k][n][1]);
        }
      }
    }
  }

  // Hides what rows do not see of the tokens from `first` on.
  __device__ __forceinline__ void mask(float (&logits)[S::kRowTiles][kTokenTiles][4], const PrefillTile& tile,
                                       int window, int first) const {
#pragma unroll
    for (int r = 0; r < 2 * S::kRowTiles; ++r) {
      const int end = tile.end_of(warp_index() * S::kWarpRows + r * 8 + lane_index() / 4) - first;
      const int begin = window > 0 ? end - window : -first;
#pragma unroll
      for (int i = 0; i < 2 * kTokenTiles; ++i) {
        const int token = i / 2 * 8 + lane_index() % 4 * 2 + i % 2;
        if (token >= end || token < begin) logits[r / 2][i / 2][r % 2 * 2 + i % 2] = kMinusInfinity;
      }
    }
  }

  __device__ __forceinline__ void rescale_and_add(float (&logits)[kTokenTiles][4], int r, float scale) {
    float rescale[2];
    softmax[r].add(logits, scale, rescale);
    if (ballot(rescale[0] != 1 || rescale[1] != 1) == 0) return;  // no row of the warp has a new top: the usual case
#pragma unroll
    for (int i = 0; i < kDim / 2; ++i) out[r][i / 4][i % 4] *= rescale[i % 4 / 2];
  }

  __device__ __forceinline__ void add_values(const float (&logits)[S::kRowTiles][kTokenTiles][4],
                                             const unsigned char* values) {
#pragma unroll
    for (int t = 0; t < kTokenTiles / 2; ++t) {
      uint32_t a[S::kRowTiles][4];
#pragma unroll
      for (int r = 0; r < S::kRowTiles; ++r) pack_probabilities(a[r], logits[r][2 * t], logits[r][2 * t + 1]);
#pragma unroll
      for (int step = 0; step < kDim / 32; ++step) {
        uint32_t b[4][2];
        load_values<kDim, Element>(b, values, 16 * t, step);
#pragma unroll
        for (int i = 0; i < 4 * S::kRowTiles; ++i)
          mma_bf16(out[i / 4][4 * step + i % 4], a[i / 4], b[i % 4][0], b[i % 4][1]);
      }
    }
  }

  // One row of results as bf16 into `queries`, in whose layout they take the warp's own rows.
  __device__ __forceinline__ void put_row(unsigned char* queries, int row, int r, int half, float factor) const {
    using Q = Tile<kDim, Bf16>;
    const int pair = lane_index() % 4;
#pragma unroll
    for (int n = 0; n < kDim / 8; n += 2) {
      const float(&even)[4] = out[r][n];
      const float(&odd)[4] = out[r][n + 1];
      if constexpr (sizeof(Element) == 2) {
        *reinterpret_cast<uint32_t*>(queries + Q::offset(row, n) + 4 * pair) =
            pack_bf16(even[2 * half] * factor, even[2 * half + 1] * factor);
        *reinterpret_cast<uint32_t*>(queries + Q::offset(row, n + 1) + 4 * pair) =
            pack_bf16(odd[2 * half] * factor, odd[2 * half + 1] * factor);
      } else {  // four neighbouring dims: output_dim
        const Vector<uint32_t, 2> four{{pack_bf16(even[2 * half] * factor, odd[2 * half] * factor),
                                        pack_bf16(even[2 * half + 1] * factor, odd[2 * half + 1] * factor)}};
        store_vector<2>(reinterpret_cast<uint32_t*>(queries + Q::offset(row, n + pair / 2) + pair % 2 * 8), four);
      }
    }
  }

  __device__ __forceinline__ void write(const PrefillArguments& args, const PrefillTile& tile, unsigned char* queries) {
    using Q = Tile<kDim, Bf16>;
    const int first = warp_index() * S::kWarpRows;
#pragma unroll
    for (int r = 0; r < S::kRowTiles; ++r) {
      softmax[r].finish();
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = first + r * 16 + half * 8 + lane_index() / 4;
        const float factor = row_factor(args, tile.head(row), softmax[r].top[half], softmax[r].sum[half]);
        put_row(queries, row, r, half, factor);
      }
    }
    sync_warp();
    for (int i = lane_index(); i < S::kWarpRows * Q::kChunks; i += kWarp) {
      const int row = first + i / Q::kChunks, chunk = i % Q::kChunks;
      if (row >= tile.rows) break;
      const auto words = load_vector<4>(reinterpret_cast<const uint32_t*>(queries + Q::offset(row, chunk)));
      store_vector<4>(reinterpret_cast<uint32_t*>(args.out + tile.place(args, row) * Q::kRowBytes + chunk * 16), words);
    }
  }
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
  Accumulator<kDim, Element> mine;
  const int tiles = copies.tiles();
  for (int i = 0; i < tiles; ++i) {
    copy_async_wait<0>();
    sync_block();  // tile i is here for all, and all are done with tile i - 1
    copies.fetch(i + 1);
    copies.look_up(i + 2);
    float logits[S::kRowTiles][S::kTokens / 8][4] = {};
    mine.score(logits, shared, copies.keys(i));
    if (needs_mask(tile, args.window, copies.first_token(i), S::kTokens))
      mine.mask(logits, tile, args.window, copies.first_token(i));
#pragma unroll
    for (int r = 0; r < S::kRowTiles; ++r) mine.rescale_and_add(logits[r], r, args.logit_scale);
    mine.add_values(logits, copies.values(i));
  }
  dependency_launch();
  mine.write(args, tile, shared);
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
