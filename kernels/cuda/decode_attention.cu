#include <algorithm>
#include <type_traits>

#include "kernels/cuda/attention_check.h"
#include "kernels/cuda/attention_combine.cuh"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {
namespace {

constexpr const char* kOp = "decode attention";
constexpr int kRows = 16;        // heads of a block
constexpr int kTileTokens = 16;  // of a warp

// At most 96 KiB of shared memory, so that two blocks fit where there are 228 KiB and one where there are 100.
template <int kDim, typename Element>
struct Shape {
  static constexpr int kTileBytes = kTileTokens * Tile<kDim, Element>::kRowBytes;  // of keys, and of values
  static constexpr int kWarps = kDim == 256 ? 2 : 4;
  static constexpr int kStages = kTileBytes >= 8192 ? 2 : kTileBytes == 4096 && kDim == 128 ? 3 : 4;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kRingBytes = kStages * 2 * kTileBytes;  // of a warp
  // That registers allow.
  static constexpr int kBlocksPerSm = kDim == 64 ? 4 : kDim == 128 && sizeof(Element) == 2 ? 2 : 3;
  // Registers cannot hold a query of 256 dims beside its sums.
  static constexpr bool kSharedQuery = kDim == 256;
  static constexpr int kQueryBytes = kSharedQuery ? kDim / 16 * kWarp * 16 : 0;
  // The warps' results take the rings' place; padding spreads the rows over the banks.
  static constexpr int kResultStride = kDim + 8;
  static constexpr int kResultBytes = kWarps * kRows * (kResultStride * 4 + static_cast<int>(sizeof(SoftmaxState)));
  static constexpr int kQueryAt = std::max(kWarps * kRingBytes, kResultBytes);
  static constexpr int kFlagAt = kQueryAt + kQueryBytes;
  static constexpr int kSharedBytes = kFlagAt + 16;
};

struct Arguments {
  const unsigned char* q = nullptr;
  const unsigned char* k = nullptr;
  const unsigned char* v = nullptr;
  const int32_t* blocks = nullptr;
  int64_t blocks_per_sequence = 0;
  int block_shift = 0;  // log2(block_tokens)
  int heads = 0, kv_heads = 0, group = 0, head_tiles = 0;
  float logit_scale = 1;  // to units of log2, the keys' scale included
  SplitPlan plan;
};

// What a block works on.
struct Work {
  int sequence, kv_head, first_head, heads, unit;
};

__device__ __forceinline__ Work work_of_block(const Arguments& args) {
  Work work;
  work.sequence = static_cast<int>(blockIdx.z);
  work.kv_head = static_cast<int>(blockIdx.y) / args.head_tiles;
  const int tile = static_cast<int>(blockIdx.y) % args.head_tiles;
  work.first_head = work.kv_head * args.group + tile * kRows;
  work.heads = args.group - tile * kRows < kRows ? args.group - tile * kRows : kRows;
  work.unit = (work.sequence * args.kv_heads + work.kv_head) * args.head_tiles + tile;
  return work;
}

// A warp's ring of tiles and the tokens that go through it: tiles `warp`, `warp` + kWarps, ... of the block's range.
template <int kDim, typename Element>
class Ring {
  using S = Shape<kDim, Element>;
  using T = Tile<kDim, Element>;

 public:
  __device__ Ring(const Arguments& args, const Work& work, TokenRange tokens, unsigned char* shared)
      : args_(args),
        table_(args.blocks + work.sequence * args.blocks_per_sequence),
        head_offset_(static_cast<int64_t>(work.kv_head) * T::kRowBytes),
        tokens_(tokens),
        shared_(shared + warp_index() * S::kRingBytes) {
    next_place_ = place(0);
  }

  __device__ int tiles() const {
    const int all = (tokens_.last - tokens_.first + kTileTokens - 1) / kTileTokens;
    return all <= warp_index() ? 0 : (all - warp_index() + S::kWarps - 1) / S::kWarps;
  }
  __device__ int first_token(int tile) const { return tokens_.first + (tile * S::kWarps + warp_index()) * kTileTokens; }
  __device__ const unsigned char* keys(int tile) const { return shared_ + tile % S::kStages * 2 * S::kTileBytes; }
  __device__ const unsigned char* values(int tile) const { return keys(tile) + S::kTileBytes; }

  // Starts the copy of the next tile, or of nothing beyond the last; a group of its own either way.
  __device__ __forceinline__ void fetch() {
    if (fetched_ < tiles()) {
      const int64_t held = next_place_;
      unsigned char* const to = shared_ + fetched_ % S::kStages * 2 * S::kTileBytes;
      next_place_ = place(fetched_ + 1);  // ahead of its use, since the copies depend on it
#pragma unroll
      for (int i = 0; i < S::kTileBytes / 16 / kWarp; ++i) {
        const int index = i * kWarp + lane_index(), row = index / T::kChunks, chunk = index % T::kChunks;
        const int64_t start = shuffle(held, row), from = start < 0 ? 0 : start + chunk * 16;
        copy_async_16(to + T::offset(row, chunk), args_.k + from, start >= 0);
        copy_async_16(to + S::kTileBytes + T::offset(row, chunk), args_.v + from, start >= 0);
      }
    }
    ++fetched_;
    copy_async_commit();
  }

 private:
  // Where the token of lane % 16 of a tile lies in the cache [bytes]; -1 beyond the range.
  __device__ int64_t place(int tile) const {
    const int token = first_token(tile) + lane_index() % kTileTokens;
    if (token >= tokens_.last) return -1;
    const int64_t block = table_[token >> args_.block_shift];
    const int64_t slot = (block << args_.block_shift) + (token & ((1 << args_.block_shift) - 1));
    return slot * args_.kv_heads * T::kRowBytes + head_offset_;
  }

  const Arguments& args_;
  const int32_t* table_;
  int64_t head_offset_;
  TokenRange tokens_;
  unsigned char* shared_;
  int64_t next_place_;
  int fetched_ = 0;
};

// Of one warp: 16 heads against its tokens.
template <int kDim, typename Element>
struct Accumulator {
  using S = Shape<kDim, Element>;
  uint32_t query[S::kSharedQuery ? 1 : kDim / 16][4];
  const uint32_t* shared_query;  // (dim / 16, lanes, 4), the same for all warps
  float out[kDim / 8][4] = {};
  OnlineSoftmax softmax;

  // Ends with a barrier of the block where the query is shared.
  __device__ __forceinline__ void load_query(const Arguments& args, const Work& work, unsigned char* shared) {
    const int row = lane_index() / 4;
    const unsigned char* dims[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // Rows without a head repeat the last one; nobody reads their results.
      const int head = work.first_head + (row + 8 * half < work.heads ? row + 8 * half : work.heads - 1);
      dims[half] = args.q + (static_cast<int64_t>(work.sequence) * args.heads + head) * kDim * 2;
    }
    uint32_t* const held = reinterpret_cast<uint32_t*>(shared + S::kQueryAt) + lane_index() * 4;
    shared_query = held;
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      if (S::kSharedQuery && step % S::kWarps != warp_index()) continue;
      Vector<uint32_t, 4> a;
#pragma unroll
      for (int half = 0; half < 2; ++half) query_fragment<Element>(a[half], a[half + 2], dims[half] + step * 32);
      if constexpr (S::kSharedQuery) store_vector<4>(held + step * kWarp * 4, a);
#pragma unroll
      for (int i = 0; i < 4 && !S::kSharedQuery; ++i) query[step][i] = a[i];
    }
    if constexpr (S::kSharedQuery) sync_block();
  }

  __device__ __forceinline__ void score(float (&logits)[2][4], const unsigned char* keys) const {
    constexpr int kSteps = kKeySteps<Element>;
#pragma unroll(S::kSharedQuery ? 4 / kSteps : kDim / 16)
    for (int step = 0; step < kDim / 16; step += kSteps) {
      uint32_t b[kSteps][2][2];
      load_keys<kDim, Element>(b, keys, 0, step / kSteps);
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        uint32_t a[4];
        take_query(a, step + i);
        mma_bf16(logits[0], a, b[i][0][0], b[i][0][1]);
        mma_bf16(logits[1], a, b[i][1][0], b[i][1][1]);
      }
    }
  }
  __device__ __forceinline__ void take_query(uint32_t (&a)[4], int step) const {
    if constexpr (S::kSharedQuery) {
      const auto held = load_vector<4>(shared_query + step * kWarp * 4);
      for (int r = 0; r < 4; ++r) a[r] = held[r];
    } else {
#pragma unroll
      for (int r = 0; r < 4; ++r) a[r] = query[step][r];
    }
  }

  // `tokens`: how many of the tile's there are.
  __device__ __forceinline__ void add_tile(const unsigned char* keys, const unsigned char* values, int tokens,
                                           float scale) {
    float logits[2][4] = {};
    score(logits, keys);
    if (tokens < kTileTokens) {
#pragma unroll
      for (int i = 0; i < 8; ++i)
        if (i / 4 * 8 + lane_index() % 4 * 2 + i % 2 >= tokens) logits[i / 4][i % 4] = kMinusInfinity;
    }
    float rescale[2];
    softmax.add(logits, scale, rescale);
    if (ballot(rescale[0] != 1 || rescale[1] != 1) != 0) {  // some row has a new top, which soon becomes rare
#pragma unroll
      for (int i = 0; i < kDim / 2; ++i) out[i / 4][i % 4] *= rescale[i % 4 / 2];
    }
    uint32_t a[4];
    pack_probabilities(a, logits[0], logits[1]);
#pragma unroll
    for (int step = 0; step < kDim / 32; ++step) {
      uint32_t b[4][2];
      load_values<kDim, Element>(b, values, 0, step);
#pragma unroll
      for (int n = 0; n < 4; ++n) mma_bf16(out[4 * step + n], a, b[n][0], b[n][1]);
    }
  }
};

// The warps' results in shared memory: (warps, 16 rows, stride) sums and (warps, 16) states.
template <int kDim, typename Element>
struct Results {
  using S = Shape<kDim, Element>;
  float* sums;
  SoftmaxState* states;

  __device__ explicit Results(unsigned char* shared)
      : sums(reinterpret_cast<float*>(shared)),
        states(reinterpret_cast<SoftmaxState*>(sums + S::kWarps * kRows * S::kResultStride)) {}

  __device__ __forceinline__ void put(Accumulator<kDim, Element>& from) {
    const int row = warp_index() * kRows + lane_index() / 4;
#pragma unroll
    for (int i = 0; i < kDim / 2; ++i) {
      const int place = (row + i % 4 / 2 * 8) * S::kResultStride + output_dim<Element>(i / 4, i % 2);
      sums[place] = from.out[i / 4][i % 4];
    }
    from.softmax.finish();
    if (lane_index() % 4 != 0) return;
    for (int half = 0; half < 2; ++half) states[row + 8 * half] = {from.softmax.top[half], from.softmax.sum[half]};
  }

  // All warps' dims `column`, + 1 of a row.
  __device__ __forceinline__ SoftmaxState take(Float2& sum, int row, int column) const {
    SoftmaxState whole{kMinusInfinity, 0};
#pragma unroll
    for (int w = 0; w < S::kWarps; ++w) whole.top = fmaxf(whole.top, states[w * kRows + row].top);
    sum = {0, 0};
#pragma unroll
    for (int w = 0; w < S::kWarps; ++w) {
      const SoftmaxState state = states[w * kRows + row];
      const float weight = weight_of(state.top, whole.top);
      const float* const from = sums + (w * kRows + row) * S::kResultStride + column;
      whole.sum += state.sum * weight;
      sum.x += from[0] * weight;
      sum.y += from[1] * weight;
    }
    return whole;
  }
};

// Writes the output when the block had the whole sequence, else its part of it.
template <int kDim, typename Element>
__device__ __forceinline__ void write(const Results<kDim, Element>& results, const SplitPlan& plan, const Work& work,
                                      int split, int active) {
  for (int i = static_cast<int>(threadIdx.x); i < work.heads * kDim / 2; i += Shape<kDim, Element>::kThreads) {
    const int row = i / (kDim / 2), column = i % (kDim / 2) * 2, head = work.first_head + row;
    Float2 sum;
    const SoftmaxState state = results.take(sum, row, column);
    const int64_t index = static_cast<int64_t>(work.sequence) * plan.heads + head;
    if (active == 1) {
      const float factor = output_factor(plan, head, state);
      *reinterpret_cast<uint32_t*>(plan.out + index * kDim + column) = pack_bf16(sum.x * factor, sum.y * factor);
    } else {
      const int64_t part = index * plan.splits + split;
      store_vector<2>(plan.partials + part * kDim + column, Vector<float, 2>{{sum.x, sum.y}});
      if (column == 0) plan.states[part] = state;
    }
  }
}

// Block (split, KV head and tile of its heads, sequence).
template <int kDim, typename Element>
__global__ void __launch_bounds__(Shape<kDim, Element>::kThreads, Shape<kDim, Element>::kBlocksPerSm)
    decode_kernel(const Arguments args) {
  using S = Shape<kDim, Element>;
  DRYDOCK_DYNAMIC_SHARED(shared);
  dependency_wait();
  const Work work = work_of_block(args);
  const TokenRange visible = visible_tokens(args.plan, work.sequence);
  const int active = active_splits(args.plan, visible), split = static_cast<int>(blockIdx.x);
  if (split >= active) return;
  const TokenRange tokens = split_tokens(args.plan, visible, split, active);

  Ring<kDim, Element> ring(args, work, tokens, shared);
#pragma unroll
  for (int stage = 0; stage < S::kStages - 1; ++stage) ring.fetch();
  Accumulator<kDim, Element> mine;
  mine.load_query(args, work, shared);
  for (int tile = 0; tile < ring.tiles(); ++tile) {
    copy_async_wait<S::kStages - 2>();
    sync_warp();  // this tile is here for all lanes, and the one before it is done with
    ring.fetch();
    mine.add_tile(ring.keys(tile), ring.values(tile), tokens.last - ring.first_token(tile), args.logit_scale);
  }
  dependency_launch();
  copy_async_wait<0>();
  sync_block();
  Results<kDim, Element> results(shared);
  results.put(mine);
  sync_block();
  write(results, args.plan, work, split, active);
  if (args.plan.fused && active > 1) {
    auto* const flag = reinterpret_cast<volatile uint32_t*>(shared + S::kFlagAt);
    combine_if_last(args.plan, work.unit, work.sequence, work.first_head, work.heads, active, flag);
  }
}

template <int kValue>
using Constant = std::integral_constant<int, kValue>;
// Calls `use(head_dim, element)` of the cache.
template <typename Use>
auto with_types(const PagedKv& kv, Use&& use) {
  const bool fp8 = kv.dtype == core::Dtype::fp8;
  if (kv.head_dim == 64) return fp8 ? use(Constant<64>{}, Fp8{}) : use(Constant<64>{}, Bf16{});
  if (kv.head_dim == 128) return fp8 ? use(Constant<128>{}, Fp8{}) : use(Constant<128>{}, Bf16{});
  return fp8 ? use(Constant<256>{}, Fp8{}) : use(Constant<256>{}, Bf16{});
}

void check_op(const DecodeAttention& op) {
  check_kv(op.kv, op.heads, kOp);
  check_numbers(op.dtype, op.scale, kOp);
  check_grid(op.batch, "batch", kOp);
  check_grid(op.heads, "heads", kOp);
}

SplitShape split_shape(const DecodeAttention& op) {
  const int64_t head_tiles = (op.heads / op.kv.kv_heads + kRows - 1) / kRows;
  SplitShape shape;
  shape.batch = op.batch;
  shape.heads = op.heads;
  shape.dim = op.kv.head_dim;
  shape.units_per_sequence = op.kv.kv_heads * head_tiles;
  shape.heads_per_unit = std::min<int64_t>(op.heads / op.kv.kv_heads, kRows);
  shape.context = op.window > 0 ? std::min(op.most_context, op.window) : op.most_context;
  with_types(op.kv, [&](auto dim, auto element) {
    using S = Shape<decltype(dim)::value, decltype(element)>;
    shape.tile_tokens = S::kWarps * kTileTokens;
    // A block also costs the 1 KiB that the system keeps.
    shape.blocks_per_sm = std::clamp((most_shared_bytes() + 1024) / (S::kSharedBytes + 1024), 1, S::kBlocksPerSm);
  });
  return shape;
}

Arguments arguments(const DecodeAttention& op, const SplitPlan& plan) {
  Arguments args;
  args.q = static_cast<const unsigned char*>(op.q);
  args.k = static_cast<const unsigned char*>(op.kv.k);
  args.v = static_cast<const unsigned char*>(op.kv.v);
  args.blocks = op.kv.blocks;
  args.blocks_per_sequence = op.kv.blocks_per_sequence;
  while (1 << args.block_shift < op.kv.block_tokens) ++args.block_shift;
  args.heads = static_cast<int>(op.heads);
  args.kv_heads = static_cast<int>(op.kv.kv_heads);
  args.group = static_cast<int>(op.heads / op.kv.kv_heads);
  args.head_tiles = (args.group + kRows - 1) / kRows;
  args.logit_scale = op.scale * op.kv.k_scale * kLog2E;
  args.plan = plan;
  args.plan.out = static_cast<Bf16*>(op.out);
  args.plan.contexts = op.contexts;
  args.plan.sinks = op.sinks;
  args.plan.window = static_cast<int>(op.window);
  args.plan.value_scale = op.kv.v_scale;
  return args;
}

}  // namespace

size_t decode_workspace_bytes(const DecodeAttention& op, const SplitOptions& options) {
  check_op(op);
  if (op.batch == 0) return 0;
  const SplitShape shape = split_shape(op);
  return plan_bytes(shape, choose_plan(shape, options));
}

void decode_attention(const DecodeAttention& op, const AttentionWorkspace& workspace, Stream stream,
                      const SplitOptions& options) {
  check_op(op);
  if (op.batch == 0) return;
  const SplitShape split = split_shape(op);
  SplitPlan plan = choose_plan(split, options);
  place_plan(plan, split, workspace, kOp);
  const Arguments args = arguments(op, plan);
  LaunchShape shape{.grid_x = static_cast<unsigned>(plan.splits), .programmatic = true};
  shape.grid_y = static_cast<unsigned>(args.kv_heads * args.head_tiles);
  shape.grid_z = static_cast<unsigned>(op.batch);
  with_types(op.kv, [&](auto dim, auto element) {
    using S = Shape<decltype(dim)::value, decltype(element)>;
    shape.threads = S::kThreads;
    shape.shared_bytes = S::kSharedBytes;
    launch(decode_kernel<decltype(dim)::value, decltype(element)>, shape, stream, args);
  });
  combine_splits(args.plan, op.batch, stream);
}

}  // namespace drydock::kernels::cuda
