// Prefill attention by wgmma and TMA. Compiled for sm_90a, not yet run on a GPU.
//
// Three warpgroups: one warp of the first copies tiles of keys and values into two stages; the other two have 64 rows
// each. Within a group the logits of the next tile are computed while the softmax of the last one runs, and the two
// groups take turns issuing their products, so that one's softmax hides behind the other's products.
#include <algorithm>

#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_tensor_map.h"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/attention_work.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/prefill_attention_sm90.h"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {
namespace {

constexpr int kGroupThreads = 128, kThreads = 3 * kGroupThreads;
constexpr int kRows = 128;
constexpr int kStages = 2;

template <int kDim>
struct Shape {
  static constexpr int kTokens = prefill_tile_shape(kDim, false, PrefillPath::hopper).tokens;
  static constexpr int kTileBytes = kTokens * kDim * 2;
  static constexpr int kQueryBytes = kRows * kDim * 2;
  static constexpr int kBarriersAt = kQueryBytes + 2 * kStages * kTileBytes;
  static constexpr int kSharedBytes = kBarriersAt + 4 * kStages * 8 + 1024;  // the swizzle needs an aligned start
};

struct Maps {
  CUtensorMap k, v;
  int box_shift;  // log2 of a box's tokens
};

#if DRYDOCK_SM90A

constexpr int kGroupRows = 64;
constexpr int kColumnBytes = 128;  // of a row of 64 dims: what one swizzled box is wide

// Shared addresses of a block: queries (columns, rows, 128 bytes); stages of keys, then of values (columns, tokens, 128
// bytes); barriers.
template <int kDim>
struct Layout {
  using S = Shape<kDim>;
  unsigned char* bytes;
  uint32_t base;
  __device__ explicit Layout(unsigned char* shared) {
    const uint32_t address = hopper::shared_address(shared);
    base = (address + 1023) / 1024 * 1024;
    bytes = shared + (base - address);
  }
  __device__ __forceinline__ uint32_t keys(int tile) const {
    return base + S::kQueryBytes + tile % kStages * S::kTileBytes;
  }
  __device__ __forceinline__ uint32_t values(int tile) const { return keys(tile) + kStages * S::kTileBytes; }
  // Full and empty, of keys (0) and values (1).
  __device__ __forceinline__ uint32_t full(int which, int tile) const {
    return base + S::kBarriersAt + (which * kStages + tile % kStages) * 8;
  }
  __device__ __forceinline__ uint32_t empty(int which, int tile) const { return full(which + 2, tile); }
  __device__ static __forceinline__ int query_offset(int row, int chunk) {
    return (chunk / 8 * kRows + row) * kColumnBytes + ((chunk % 8) ^ (row & 7)) * 16;
  }
};

__device__ __forceinline__ uint32_t full_parity(int tile) { return static_cast<uint32_t>(tile / kStages & 1); }
__device__ __forceinline__ uint32_t empty_parity(int tile) { return full_parity(tile) ^ 1U; }

// The tokens of a block's tiles, which begin at multiples of kTokens so that boxes lie within pages.
template <int kDim>
struct Tokens {
  static constexpr int kTokens = Shape<kDim>::kTokens;
  int first, begin, end;  // of the first tile, and what some row sees
  __device__ explicit Tokens(TokenSpan span)
      : first(span.first / kTokens * kTokens), begin(span.first), end(span.last) {}
  __device__ __forceinline__ int tiles() const { return (end - first + kTokens - 1) / kTokens; }
  __device__ __forceinline__ int of(int tile) const { return first + tile * kTokens; }
};

// One warp: a box a lane. Boxes without a token that some row sees stay away: their pages may be anybody's.
template <int kDim>
__device__ __forceinline__ void produce(const PrefillArguments& args, const Maps& maps, const PrefillTile& block,
                                        const Tokens<kDim>& tokens, const Layout<kDim>& layout) {
  using S = Shape<kDim>;
  constexpr int kColumns = kDim / 64;
  const int box_tokens = 1 << maps.box_shift, lane = lane_index();
  const int32_t* const table = args.blocks + block.sequence * args.blocks_per_sequence;
  for (int tile = 0; tile < tokens.tiles(); ++tile) {
    const int before = tokens.begin - tokens.of(tile), left = min(tokens.end - tokens.of(tile), S::kTokens);
    const int first = max(before, 0) >> maps.box_shift, last = (left + box_tokens - 1) >> maps.box_shift;
    const auto bytes = static_cast<uint32_t>((last - first) * box_tokens * kDim * 2);
    for (int which = 0; which < 2; ++which) {
      hopper::barrier_wait(layout.empty(which, tile), empty_parity(tile));
      const uint32_t barrier = layout.full(which, tile), to = which == 0 ? layout.keys(tile) : layout.values(tile);
      if (lane == 0) hopper::barrier_arrive_expecting(barrier, bytes);
      sync_warp();
#pragma unroll 1
      for (int i = lane; i < (last - first) * kColumns; i += kWarp) {
        const int box = first + i / kColumns, column = i % kColumns;
        const int token = tokens.of(tile) + box * box_tokens;
        const int page = table[token >> args.block_shift];
        const int slot = (page << args.block_shift) + (token & ((1 << args.block_shift) - 1));
        const uint32_t place = static_cast<uint32_t>((column * S::kTokens + box * box_tokens) * kColumnBytes);
        hopper::copy_box(to + place, which == 0 ? &maps.k : &maps.v, barrier, column * 64, block.kv_head, slot);
      }
    }
  }
}

// One warpgroup: 64 rows of the block's.
template <int kDim>
struct Consumer {
  using S = Shape<kDim>;
  static constexpr int kTokenTiles = S::kTokens / 8;
  const PrefillArguments& args;
  PrefillTile rows;  // this group's
  const Tokens<kDim>& tokens;
  const Layout<kDim>& layout;
  int group;
  float out[kDim / 8][4];
  float logits[kTokenTiles][4];
  uint32_t probabilities[kTokenTiles / 2][4];
  float rescale[2];
  OnlineSoftmax softmax;

  __device__ __forceinline__ int thread() const { return static_cast<int>(threadIdx.x) % kGroupThreads; }
  __device__ __forceinline__ void sync_group() const { named_barrier(4 + group, kGroupThreads); }
  // The groups take turns: each waits for its own barrier, which the other counts up.
  __device__ __forceinline__ void wait_turn() const { named_barrier(2 + group, 2 * kGroupThreads); }
  __device__ __forceinline__ void pass_turn() const { hopper::named_barrier_arrive(3 - group, 2 * kGroupThreads); }
  __device__ __forceinline__ void release(int which, int tile) const {
    if (lane_index() == 0) hopper::barrier_arrive(layout.empty(which, tile));
  }

  __device__ __forceinline__ void load_queries() const {
    constexpr int kChunks = kDim / 8;
    for (int i = thread(); i < kGroupRows * kChunks; i += kGroupThreads) {
      const int row = i / kChunks, chunk = i % kChunks;
      Word4 words{{0, 0, 0, 0}};
      if (row < rows.rows)
        words =
            load_vector<4>(reinterpret_cast<const uint32_t*>(args.q + rows.place(args, row) * kDim * 2 + chunk * 16));
      unsigned char* const to = layout.bytes + Layout<kDim>::query_offset(group * kGroupRows + row, chunk);
      store_vector<4>(reinterpret_cast<uint32_t*>(to), words);
    }
    hopper::fence_for_async();
    sync_group();
  }

  __device__ __forceinline__ void start_logits(int tile) {
    uint32_t queries = layout.base + group * kGroupRows * kColumnBytes;
    asm volatile("" : "+r"(queries));  // or the descriptors would be kept in registers from tile to tile, which spills
    hopper::hold(logits);
    hopper::products_begin();
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      const uint32_t within = step % 4 * 32;
      const uint64_t a = hopper::descriptor(queries + step / 4 * kRows * kColumnBytes + within, 16);
      const uint64_t b = hopper::descriptor(layout.keys(tile) + step / 4 * S::kTokens * kColumnBytes + within, 16);
      hopper::multiply_shared(logits, a, b, step != 0);
    }
    hopper::products_commit();
  }
  __device__ __forceinline__ void start_values(int tile) {
    hopper::hold(out);
    hopper::products_begin();
#pragma unroll
    for (int step = 0; step < S::kTokens / 16; ++step) {
      const uint32_t rows_at = layout.values(tile) + step * 16 * kColumnBytes;
      hopper::multiply_registers(out, probabilities[step], hopper::descriptor(rows_at, S::kTokens * kColumnBytes));
    }
    hopper::products_commit();
  }

  // Values of tokens that no row sees were not copied, or are another's: zeros, since 0 * NaN is NaN.
  __device__ __forceinline__ void clear_values(int tile) const {
    const int first = tokens.of(tile);
    if (first >= tokens.begin && first + S::kTokens <= tokens.end) return;
    unsigned char* const values = layout.bytes + (layout.values(tile) - layout.base);
    for (int i = thread(); i < S::kTokens * kDim / 8; i += kGroupThreads) {
      const int chunk = i % 8, row = i / 8, token = first + row % S::kTokens;
      if (token >= tokens.begin && token < tokens.end) continue;
      store_vector<4>(reinterpret_cast<uint32_t*>(values + row * kColumnBytes + chunk * 16), Word4{{0, 0, 0, 0}});
    }
    hopper::fence_for_async();
    sync_group();
  }

  __device__ __forceinline__ void mask(int first) {
    if (!needs_mask(rows, args.window, first, S::kTokens)) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int end = rows.end_of(thread() / kWarp * 16 + half * 8 + lane_index() / 4) - first;
      const int begin = args.window > 0 ? end - args.window : -first;
#pragma unroll
      for (int i = 0; i < 2 * kTokenTiles; ++i) {
        const int token = i / 2 * 8 + lane_index() % 4 * 2 + i % 2;
        if (token >= end || token < begin) logits[i / 2][half * 2 + i % 2] = kMinusInfinity;
      }
    }
  }
  __device__ __forceinline__ void take_softmax(int tile) {
    mask(tokens.of(tile));
    softmax.add(logits, args.logit_scale, rescale);
  }
  __device__ __forceinline__ void pack() {
#pragma unroll
    for (int step = 0; step < kTokenTiles / 2; ++step)
      pack_probabilities(probabilities[step], logits[2 * step], logits[2 * step + 1]);
  }
  __device__ __forceinline__ void apply_rescale() {
#pragma unroll
    for (int i = 0; i < kDim / 2; ++i) out[i / 4][i % 4] *= rescale[i % 4 / 2];
  }

  __device__ __forceinline__ void run() {
    load_queries();
    const int tiles = tokens.tiles();
    if (group == 1) pass_turn();  // the first turn is the other's
    wait_for_keys(0);
    wait_turn();
    start_logits(0);
    pass_turn();
    hopper::products_wait<0>();
    hopper::hold(logits);
    release(0, 0);
    take_softmax(0);
    pack();
#pragma unroll
    for (int i = 0; i < kDim / 2; ++i) out[i / 4][i % 4] = 0;
    wait_for_keys(1);
    for (int tile = 1; tile < tiles; ++tile) step(tile);
    if (group == 0) wait_turn();  // the other's last, so that none is left over
    finish_values(tiles - 1);
  }

  __device__ __forceinline__ void wait_for_keys(int tile) const {
    if (tile < tokens.tiles()) hopper::barrier_wait(layout.full(0, tile), full_parity(tile));
  }
  // Logits of a tile, whose keys are here, beside the values of the one before.
  __device__ __forceinline__ void step(int tile) {
    hopper::barrier_wait(layout.full(1, tile - 1), full_parity(tile - 1));
    clear_values(tile - 1);
    wait_turn();
    start_logits(tile);
    start_values(tile - 1);
    pass_turn();
    hopper::products_wait<1>();
    hopper::hold(logits);
    release(0, tile);
    take_softmax(tile);
    // The softmax hides behind the values' products only when it stays before the wait for them. The assembler moves it
    // beyond, but not across the loop of a barrier.
    hopper::hold(logits);
    wait_for_keys(tile + 1);
    hopper::products_wait<0>();
    hopper::hold(out);
    release(1, tile - 1);
    apply_rescale();
    pack();
  }
  __device__ __forceinline__ void finish_values(int tile) {
    hopper::barrier_wait(layout.full(1, tile), full_parity(tile));
    clear_values(tile);
    start_values(tile);
    hopper::products_wait<0>();
    hopper::hold(out);
  }

  // By way of this group's queries, which nobody needs any more.
  __device__ __forceinline__ void write() {
    const int warp_row = thread() / kWarp * 16, pair = lane_index() % 4;
    softmax.finish();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp_row + half * 8 + lane_index() / 4;
      const float factor = row_factor(args, rows.head(row), softmax.top[half], softmax.sum[half]);
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        unsigned char* const to = layout.bytes + Layout<kDim>::query_offset(group * kGroupRows + row, n) + 4 * pair;
        *reinterpret_cast<uint32_t*>(to) = pack_bf16(out[n][2 * half] * factor, out[n][2 * half + 1] * factor);
      }
    }
    sync_warp();
    constexpr int kChunks = kDim / 8;
    for (int i = lane_index(); i < 16 * kChunks; i += kWarp) {
      const int row = warp_row + i / kChunks, chunk = i % kChunks;
      if (row >= rows.rows) break;
      const unsigned char* const from = layout.bytes + Layout<kDim>::query_offset(group * kGroupRows + row, chunk);
      store_vector<4>(reinterpret_cast<uint32_t*>(args.out + rows.place(args, row) * kDim * 2 + chunk * 16),
                      load_vector<4>(reinterpret_cast<const uint32_t*>(from)));
    }
  }
};

__device__ __forceinline__ PrefillTile rows_of_group(PrefillTile block, int group) {
  block.first_row += group * kGroupRows;
  block.rows = min(block.rows - group * kGroupRows, kGroupRows);
  return block;
}

template <int kDim>
__device__ __forceinline__ void init_barriers(const Layout<kDim>& layout) {
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      for (int which = 0; which < 2; ++which) {
        hopper::barrier_init(layout.full(which, stage), 1);
        hopper::barrier_init(layout.empty(which, stage), 8);  // the consumers' warps
      }
    }
    hopper::barrier_init_fence();
  }
  sync_block();
}

#endif  // DRYDOCK_SM90A

template <int kDim>
__global__ void __launch_bounds__(kThreads, 1)
    prefill_kernel_sm90(const PrefillArguments args, const __grid_constant__ Maps maps) {
#if DRYDOCK_SM90A
  DRYDOCK_DYNAMIC_SHARED(shared);
  dependency_wait();
  const PrefillTile block = tile_of_block(args, kRows);
  if (block.rows <= 0) return;
  const Layout<kDim> layout(shared);
  const Tokens<kDim> tokens(span_of(block, args.window));
  init_barriers(layout);
  const int warpgroup = static_cast<int>(threadIdx.x) / kGroupThreads;
  if (warpgroup == 0) {
    hopper::give_registers<24>();
    if (warp_index() == 0) produce(args, maps, block, tokens, layout);
  } else {
    hopper::take_registers<240>();
    Consumer<kDim> consumer{args, rows_of_group(block, warpgroup - 1), tokens, layout, warpgroup - 1};
    consumer.run();
    // Worked out again, since registers are short until here.
    consumer.rows = rows_of_group(tile_of_block(args, kRows), warpgroup - 1);
    consumer.write();
  }
#endif
}

template <int kDim>
void start(const PrefillAttention& op, Stream stream) {
  using S = Shape<kDim>;
  const PrefillArguments args = prefill_arguments(op);
  Maps maps;
  maps.box_shift = 0;
  while (1 << maps.box_shift < std::min<int64_t>(op.kv.block_tokens, S::kTokens)) ++maps.box_shift;
  maps.k = cache_map(op.kv, op.kv.k, 1 << maps.box_shift);
  maps.v = cache_map(op.kv, op.kv.v, 1 << maps.box_shift);
  LaunchShape shape{.threads = kThreads, .programmatic = true};
  shape.grid_x = static_cast<unsigned>((op.most_new * args.group + kRows - 1) / kRows);
  shape.grid_y = static_cast<unsigned>(op.kv.kv_heads);
  shape.grid_z = static_cast<unsigned>(op.batch);
  shape.shared_bytes = S::kSharedBytes;
  launch(prefill_kernel_sm90<kDim>, shape, stream, args, maps);
}

}  // namespace

bool can_prefill_sm90(const PrefillAttention& op) {
  return op.kv.dtype == core::Dtype::bf16 && op.kv.block_tokens >= 8 && op.kv.block_tokens <= 256 &&
         compute_capability() == 90;
}

void prefill_attention_sm90(const PrefillAttention& op, Stream stream) {
  if (op.kv.head_dim == 64) return start<64>(op, stream);
  if (op.kv.head_dim == 128) return start<128>(op, stream);
  start<256>(op, stream);
}

}  // namespace drydock::kernels::cuda
