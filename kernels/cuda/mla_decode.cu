#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/cuda/attention_check.h"
#include "kernels/cuda/attention_combine.cuh"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/mla_copies.cuh"
#include "kernels/cuda/mla_decode.h"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {
namespace {

constexpr const char* kOp = "MLA decode";

__device__ __forceinline__ void load_rows(uint32_t (&a)[4], const unsigned char* rows, int first, int step) {
  const int place = Row::offset(lane_index() % 16, lane_index() / 16);
  load_matrix_x4(a, rows + first * Row::kRowBytes + Row::advance(place, 2 * step));
}

// A logit's place within its part: 16-byte chunks exchanged as in Tile, so that a warp's rows lie in different banks.
__device__ __forceinline__ int logit_index(int row, int token) {
  return row * kTokens + (((token / 4) ^ (row & 7)) * 4 + token % 4);
}

// The first product: this warp's share of the dims, tokens and rows.
template <typename S>
struct Scores {
  int group, tokens, part;

  __device__ Scores()
      : group(warp_index() % S::kGroups),
        tokens(warp_index() / S::kGroups % 2 * 16),
        part(warp_index() / (2 * S::kGroups)) {}

  __device__ __forceinline__ void add_step(float (&logits)[S::kWarpTiles][2][4], const unsigned char* queries,
                                           const unsigned char* tile, int step) const {
    uint32_t b[1][2][2];
    load_keys<kWidth, Bf16>(b, tile, tokens, step);
#pragma unroll
    for (int r = 0; r < S::kWarpTiles; ++r) {
      uint32_t a[4];
      load_rows(a, queries, (group * S::kWarpTiles + r) * 16, step);
      mma_bf16(logits[r][0], a, b[0][0][0], b[0][0][1]);
      mma_bf16(logits[r][1], a, b[0][1][0], b[0][1][1]);
    }
  }

  // Leaves them in shared memory.
  __device__ __forceinline__ void add_tile(unsigned char* shared, const unsigned char* tile) const {
    float logits[S::kWarpTiles][2][4] = {};
#pragma unroll 3
    for (int i = 0; i < S::kSteps; ++i) add_step(logits, shared, tile, part * S::kSteps + i);
    float* const to = reinterpret_cast<float*>(shared + S::kLogitsAt + part * S::kPartBytes);
#pragma unroll
    for (int i = 0; i < S::kWarpTiles * 4; ++i) {
      const int row = (group * S::kWarpTiles + i / 4) * 16 + i % 2 * 8 + lane_index() / 4, n = i / 2 % 2;
      const float(&from)[4] = logits[i / 4][n];
      const Vector<float, 2> pair{{from[i % 2 * 2], from[i % 2 * 2 + 1]}};
      store_vector<2>(to + logit_index(row, tokens + n * 8 + lane_index() % 4 * 2), pair);
    }
  }
};

// Rows of the softmax that a warp keeps: `warp`, `warp` + 8, ...; each lane has one token of a tile.
template <typename S>
struct RowSoftmax {
  static constexpr int kOwn = S::kRows / kWarps;
  float top[kOwn], sum[kOwn];  // the sum is this lane's share

  __device__ RowSoftmax() {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) top[i] = kMinusInfinity, sum[i] = 0;
  }

  // Logits become probabilities relative to the new tops, and the factors of what was added before.
  __device__ __forceinline__ void add_tile(unsigned char* shared, int tokens, float scale) {
    const auto* const logits = reinterpret_cast<const float*>(shared + S::kLogitsAt);
    auto* const scales = reinterpret_cast<float*>(shared + S::kScalesAt);
    const int lane = lane_index();
    float mine[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int index = logit_index(i * kWarps + warp_index(), lane);
      mine[i] = 0;
#pragma unroll
      for (int part = 0; part < S::kParts; ++part) mine[i] += logits[part * S::kRows * kTokens + index];
      if (lane >= tokens) mine[i] = kMinusInfinity;
    }
    sync_warp();  // the probabilities take their place
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int row = i * kWarps + warp_index();
      const float most = fmaxf(top[i], warp_max(mine[i]) * scale);  // a tile has a token: finite
      const float rescale = fast_exp2(top[i] - most), p = fast_exp2(mine[i] * scale - most);
      top[i] = most;
      sum[i] = sum[i] * rescale + p;
      unsigned char* const to = shared + S::kLogitsAt + Probabilities::offset(row, lane / 8) + lane % 8 * 2;
      *reinterpret_cast<Bf16*>(to) = to_bf16(p);
      if (lane == 0) scales[row] = rescale;
    }
  }

  // The states of all rows, for everyone after a barrier.
  __device__ __forceinline__ void publish(unsigned char* shared) {
    auto* const states = reinterpret_cast<SoftmaxState*>(shared + S::kScalesAt);
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const float total = warp_sum(sum[i]);
      if (lane_index() == 0) states[i * kWarps + warp_index()] = {top[i], total};
    }
  }
};

// The second product: all rows, 64 dims of the latent a warp.
template <typename S>
struct Sums {
  float out[S::kRowTiles][8][4] = {};

  __device__ __forceinline__ void add_tile(const unsigned char* shared, const unsigned char* tile) {
    const auto* const scales = reinterpret_cast<const float*>(shared + S::kScalesAt);
#pragma unroll
    for (int r = 0; r < S::kRowTiles; ++r) {
      const float low = scales[r * 16 + lane_index() / 4], high = scales[r * 16 + lane_index() / 4 + 8];
#pragma unroll
      for (int i = 0; i < 32; ++i) out[r][i / 4][i % 4] *= i % 4 < 2 ? low : high;
    }
#pragma unroll
    for (int t = 0; t < kTokens / 16; ++t) {
      uint32_t b[2][4][2];
      load_values<kWidth, Bf16>(b[0], tile, 16 * t, 2 * warp_index());
      load_values<kWidth, Bf16>(b[1], tile, 16 * t, 2 * warp_index() + 1);
#pragma unroll
      for (int r = 0; r < S::kRowTiles; ++r) {
        uint32_t a[4];
        const int place = Probabilities::offset(r * 16 + lane_index() % 16, 2 * t + lane_index() / 16);
        load_matrix_x4(a, shared + S::kLogitsAt + place);
#pragma unroll
        for (int n = 0; n < 8; ++n) mma_bf16(out[r][n], a, b[n / 4][n % 4][0], b[n / 4][n % 4][1]);
      }
    }
  }

  // Writes the output when the block had the whole sequence, else its part of it.
  __device__ __forceinline__ void write(const Arguments& args, const Work& work, const unsigned char* shared, int split,
                                        int active) const {
    const auto* const states = reinterpret_cast<const SoftmaxState*>(shared + S::kScalesAt);
#pragma unroll
    for (int i = 0; i < S::kRowTiles * 16; ++i) {
      const int r = i / 16, n = i / 2 % 8, half = i % 2, row = r * 16 + half * 8 + lane_index() / 4;
      if (row >= work.heads) continue;
      const int column = warp_index() * 64 + n * 8 + lane_index() % 4 * 2;
      const float x = out[r][n][2 * half], y = out[r][n][2 * half + 1];
      const int64_t index = work.place(args, row);
      if (active == 1) {
        const float factor = output_factor(args.plan, 0, states[row]);
        *reinterpret_cast<uint32_t*>(args.plan.out + index * kLatent + column) = pack_bf16(x * factor, y * factor);
      } else {
        const int64_t part = index * args.plan.splits + split;
        store_vector<2>(args.plan.partials + part * kLatent + column, Vector<float, 2>{{x, y}});
        if (column == 0) args.plan.states[part] = states[row];
      }
    }
  }
};

// Block (split, tile of heads, sequence).
template <typename S>
__global__ void __launch_bounds__(kThreads, S::kBlocksPerSm) mla_kernel(const Arguments args) {
  DRYDOCK_DYNAMIC_SHARED(shared);
  dependency_wait();
  Work work{static_cast<int>(blockIdx.z), static_cast<int>(blockIdx.y) * S::kRows, 0, {0, 0}};
  work.heads = args.heads - work.first_head < S::kRows ? args.heads - work.first_head : S::kRows;
  const TokenRange visible = visible_tokens(args.plan, work.sequence);
  const int active = active_splits(args.plan, visible), split = static_cast<int>(blockIdx.x);
  if (split >= active) return;
  work.tokens = split_tokens(args.plan, visible, split, active);

  const int tiles = work.tiles();
#pragma unroll
  for (int i = 0; i < S::kStages; ++i) look_up<S>(args, work, shared, i);
  fetch_queries<S>(args, work, shared);
  sync_block();
#pragma unroll
  for (int i = 0; i < S::kStages - 1; ++i) fetch<S>(args, work, shared, i);
  const Scores<S> scores;
  RowSoftmax<S> softmax;
  Sums<S> sums;
  for (int tile = 0; tile < tiles; ++tile) {
    const unsigned char* const here = shared + S::kTilesAt + tile % S::kStages * S::kTileBytes;
    copy_async_wait<S::kStages - 2>();
    sync_block();  // this tile is here for all, and all are done with the one before
    fetch<S>(args, work, shared, tile + S::kStages - 1);
    scores.add_tile(shared, here);
    sync_block();
    look_up<S>(args, work, shared, tile + S::kStages);
    softmax.add_tile(shared, work.tokens.last - work.tokens.first - tile * kTokens, args.logit_scale);
    sync_block();
    sums.add_tile(shared, here);
  }
  dependency_launch();
  sync_block();  // the states take the place of the scales
  softmax.publish(shared);
  sync_block();
  sums.write(args, work, shared, split, active);
  if (args.plan.fused && active > 1) {
    auto* const flag = reinterpret_cast<volatile uint32_t*>(shared + S::kFlagAt);
    const int unit = work.sequence * static_cast<int>(gridDim.y) + static_cast<int>(blockIdx.y);
    combine_if_last(args.plan, unit, work.sequence, work.first_head, work.heads, active, flag);
  }
}

void check_op(const MlaDecode& op) {
  check_numbers(op.dtype, op.scale, kOp);
  check_grid(op.batch, "batch", kOp);
  check_grid(op.heads, "heads", kOp);
  if (op.latent != kLatent || op.rope != kRope)
    throw core::Error(std::string(kOp) + ": latent " + std::to_string(op.latent) + " and rope " +
                      std::to_string(op.rope) + "; 512 and 64 are right");
  if (op.heads <= 0 || op.block_tokens <= 0 || (op.block_tokens & (op.block_tokens - 1)) != 0)
    throw core::Error(std::string(kOp) + ": " + std::to_string(op.heads) + " heads and block_tokens " +
                      std::to_string(op.block_tokens) + "; some heads and a power of two are right");
}

// Calls `use(Shape)`. Up to 32 heads, reading the cache twice from L2 costs less than rows of nothing.
template <typename Use>
void with_shape(const MlaDecode& op, MlaRows rows, Use&& use) {
  const bool many = rows == MlaRows::many || (rows == MlaRows::automatic && op.heads > 32);
  if (many && most_shared_bytes() >= ManyRows::kSharedBytes) return use(ManyRows{});
  if (many && most_shared_bytes() >= ManyRowsSmall::kSharedBytes) return use(ManyRowsSmall{});
  use(FewRows{});
}

SplitShape split_shape(const MlaDecode& op, MlaRows rows) {
  SplitShape shape;
  shape.batch = op.batch;
  shape.heads = op.heads;
  shape.dim = kLatent;
  shape.context = op.most_context;
  shape.tile_tokens = kTokens;
  with_shape(op, rows, [&](auto chosen) {
    using S = decltype(chosen);
    shape.units_per_sequence = (op.heads + S::kRows - 1) / S::kRows;
    shape.heads_per_unit = std::min<int64_t>(op.heads, S::kRows);
    shape.blocks_per_sm = std::clamp((most_shared_bytes() + 1024) / (S::kSharedBytes + 1024), 1, S::kBlocksPerSm);
  });
  return shape;
}

Arguments arguments(const MlaDecode& op, const SplitPlan& plan) {
  Arguments args;
  args.q = static_cast<const unsigned char*>(op.q);
  args.cache = static_cast<const unsigned char*>(op.cache);
  args.blocks = op.blocks;
  args.blocks_per_sequence = op.blocks_per_sequence;
  while (1 << args.block_shift < op.block_tokens) ++args.block_shift;
  args.heads = static_cast<int>(op.heads);
  args.logit_scale = op.scale * kLog2E;
  args.plan = plan;
  args.plan.out = static_cast<Bf16*>(op.out);
  args.plan.contexts = op.contexts;
  return args;
}

}  // namespace

size_t mla_workspace_bytes(const MlaDecode& op, const MlaOptions& options) {
  check_op(op);
  if (op.batch == 0) return 0;
  const SplitShape shape = split_shape(op, options.rows);
  return plan_bytes(shape, choose_plan(shape, options.split));
}

namespace {

// As one token each of as many sequences; the list of each is added by `picked`.
MlaDecode rows_of(const SparseMla& op) {
  MlaDecode out;
  out.q = op.q, out.out = op.out, out.dtype = op.dtype;
  out.cache = op.cache, out.block_tokens = op.block_tokens;
  out.blocks = op.blocks, out.blocks_per_sequence = op.blocks_per_sequence;
  out.contexts = op.counts, out.batch = op.tokens, out.most_context = op.most_selected;
  out.heads = op.heads, out.latent = op.latent, out.rope = op.rope, out.scale = op.scale;
  return out;
}

template <typename Picked>
void start(const MlaDecode& op, const AttentionWorkspace& workspace, Stream stream, const MlaOptions& options,
           Picked&& picked) {
  check_op(op);
  if (op.batch == 0) return;
  const SplitShape split = split_shape(op, options.rows);
  SplitPlan plan = choose_plan(split, options.split);
  place_plan(plan, split, workspace, kOp);
  Arguments args = arguments(op, plan);
  picked(args);
  LaunchShape shape{.grid_x = static_cast<unsigned>(plan.splits), .threads = kThreads, .programmatic = true};
  shape.grid_y = static_cast<unsigned>(split.units_per_sequence);
  shape.grid_z = static_cast<unsigned>(op.batch);
  with_shape(op, options.rows, [&](auto chosen) {
    shape.shared_bytes = decltype(chosen)::kSharedBytes;
    launch(mla_kernel<decltype(chosen)>, shape, stream, args);
  });
  combine_splits(args.plan, op.batch, stream);
}

}  // namespace

void mla_decode(const MlaDecode& op, const AttentionWorkspace& workspace, Stream stream, const MlaOptions& options) {
  start(op, workspace, stream, options, [](Arguments&) {});
}

size_t sparse_mla_workspace_bytes(const SparseMla& op, const MlaOptions& options) {
  return mla_workspace_bytes(rows_of(op), options);
}

void sparse_mla(const SparseMla& op, const AttentionWorkspace& workspace, Stream stream, const MlaOptions& options) {
  start(rows_of(op), workspace, stream, options, [&](Arguments& args) {
    args.sequences = op.sequences, args.selected = op.selected, args.most_selected = op.most_selected;
  });
}

}  // namespace drydock::kernels::cuda
