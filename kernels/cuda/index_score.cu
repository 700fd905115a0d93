#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/cuda/attention_check.h"
#include "kernels/cuda/index_score.h"
#include "kernels/cuda/ranking.cuh"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {
namespace {

constexpr const char* kOp = "index_score";
constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kDim = 128, kPieces = kDim / 16;  // bytes of a row of e4m3
constexpr int kMostHeads = 64;
constexpr int kWarpKeys = 32, kTileKeys = kWarps * kWarpKeys;
constexpr int kTileTokens = 16;  // queries that a block takes past its keys
constexpr int kQueryBytes = kMostHeads * kDim, kQueriesAt = kTileKeys * kDim;
constexpr int kSharedBytes = kQueriesAt + 2 * kQueryBytes;

struct Arguments {
  const uint8_t* q = nullptr;
  const float* weights = nullptr;
  const uint8_t* keys = nullptr;
  const float* key_scales = nullptr;
  const int32_t* blocks = nullptr;
  const int32_t* starts = nullptr;
  const int32_t* contexts = nullptr;
  int64_t blocks_per_sequence = 0;
  int block_shift = 0, heads = 0;
  float* scores = nullptr;  // (tokens, most_context)
  int64_t most_context = 0, top_k = 0;
  int32_t* selected = nullptr;
  int32_t* counts = nullptr;
};

// Rows of 128 bytes whose pieces of 16 lie in different banks for eight rows at once.
__device__ __forceinline__ unsigned char* place(unsigned char* rows, int row, int piece) {
  return rows + row * kDim + (piece ^ row % 8) * 16;
}

__device__ __forceinline__ int64_t slot_of(const Arguments& args, int sequence, int token) {
  const int64_t block = args.blocks[sequence * args.blocks_per_sequence + (token >> args.block_shift)];
  return (block << args.block_shift) + (token & ((1 << args.block_shift) - 1));
}

__device__ __forceinline__ void fetch_query(const Arguments& args, int64_t token, unsigned char* to) {
  for (int i = static_cast<int>(threadIdx.x); i < args.heads * kPieces; i += kThreads)
    copy_async_16(place(to, i / kPieces, i % kPieces),
                  args.q + (token * args.heads + i / kPieces) * kDim + i % kPieces * 16);
  copy_async_commit();
}

// A warp's 32 keys as the left operand of products with heads: rows of two tiles of 16, all dims.
struct Keys {
  uint32_t fragments[2][kDim / 32][4];
  float scales[2][2];  // of rows group and group + 8

  __device__ __forceinline__ void load(unsigned char* rows) {
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int step = 0; step < kDim / 32; ++step)
        load_matrix_x4(fragments[r][step], place(rows, warp_index() * kWarpKeys + r * 16 + lane_index() % 16,
                                                 step * 2 + lane_index() / 16));
  }

  // Sums over heads of weight * max(product, 0), of this lane's columns.
  __device__ __forceinline__ void add(unsigned char* query, const float* weights, int heads,
                                      float (&sums)[2][2]) const {
    const int lane = lane_index();
    for (int first = 0; first < heads; first += 16) {
      float products[2][2][4] = {};
#pragma unroll
      for (int step = 0; step < kDim / 32; ++step) {
        uint32_t b[4];  // two tiles of 8 heads
        load_matrix_x4(b, place(query, first + lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2));
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          mma_fp8(products[r][0], fragments[r][step], b[0], b[1]);
          mma_fp8(products[r][1], fragments[r][step], b[2], b[3]);
        }
      }
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const float weight = weights[first + n * 8 + lane % 4 * 2 + c];
#pragma unroll
          for (int i = 0; i < 4; ++i) {  // a NaN stays one
            const float product = products[i / 2][n][i % 2 * 2 + c];
            sums[i / 2][i % 2] += weight * (product < 0 ? 0.0F : product);
          }
        }
    }
  }
};

// Block (tile of keys, tile of queries, sequence).
__global__ void __launch_bounds__(kThreads, 1) score_kernel(const Arguments args) {
  DRYDOCK_DYNAMIC_SHARED(shared);
  dependency_wait();
  const int sequence = static_cast<int>(blockIdx.z), start = args.starts[sequence];
  const int fresh = args.starts[sequence + 1] - start, context = args.contexts[sequence];
  const int first_key = static_cast<int>(blockIdx.x) * kTileKeys;
  const int cached = context - fresh, end = std::min(static_cast<int>(blockIdx.y + 1) * kTileTokens, fresh);
  // The first query that sees a key of the tile.
  const int begin = std::max(static_cast<int>(blockIdx.y) * kTileTokens, first_key - cached);
  if (begin >= end || first_key >= context) return;
  for (int i = static_cast<int>(threadIdx.x); i < kTileKeys * kPieces; i += kThreads) {
    const int token = first_key + i / kPieces;
    const bool valid = token < context;
    const int64_t from = valid ? slot_of(args, sequence, token) * kDim + i % kPieces * 16 : 0;
    copy_async_16(place(shared, i / kPieces, i % kPieces), args.keys + from, valid);
  }
  fetch_query(args, start + begin, shared + kQueriesAt);
  const int row = first_key + warp_index() * kWarpKeys + lane_index() / 4;  // of the lane's four: + 8, + 16, + 24
  Keys keys;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    keys.scales[i / 2][i % 2] = row + 8 * i < context ? args.key_scales[slot_of(args, sequence, row + 8 * i)] : 0.0F;
  for (int query = begin; query < end; ++query) {
    copy_async_wait<0>();
    sync_block();  // this query is here for all, and all are done with the one before
    unsigned char* const here = shared + kQueriesAt + (query - begin) % 2 * kQueryBytes;
    if (query == begin) keys.load(shared);
    if (query + 1 < end)
      fetch_query(args, start + query + 1, shared + kQueriesAt + (query + 1 - begin) % 2 * kQueryBytes);
    float sums[2][2] = {};
    const int64_t token = start + query;
    keys.add(here, args.weights + token * args.heads, args.heads, sums);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float sum = warp_sum<4>(sums[i / 2][i % 2]) * keys.scales[i / 2][i % 2];
      const int key = row + 8 * i;
      if (lane_index() % 4 == 0 && key <= cached + query) args.scores[token * args.most_context + key] = sum;
    }
  }
  dependency_launch();
}

// One block a token of `sequence`: blocks (token of the chunk, sequence).
__global__ void __launch_bounds__(ranking::kMostThreads, 1) select_kernel(const Arguments args) {
  DRYDOCK_DYNAMIC_SHARED(bytes);
  auto* const shared = reinterpret_cast<ranking::Shared*>(bytes);
  dependency_wait();
  const int sequence = static_cast<int>(blockIdx.y), start = args.starts[sequence];
  const int fresh = args.starts[sequence + 1] - start, query = static_cast<int>(blockIdx.x);
  if (query >= fresh) return;
  const int64_t token = start + query;
  const int seen = args.contexts[sequence] - fresh + query + 1;
  const int count = seen < args.top_k ? seen : static_cast<int>(args.top_k);
  int32_t* const selected = args.selected + token * args.top_k;
  if (threadIdx.x == 0) args.counts[token] = count;
  const ranking::Ranked row{args.scores + token * args.most_context, seen};
  uint64_t cut = 0;  // as many as there are: all
  if (count < seen)
    cut = ranking::find_cut(row, 0, static_cast<uint64_t>(count), shared, [](int) { return uint64_t{1}; });
  int before = 0;
  for (int first = 0; first < seen; first += ranking::threads()) {
    const int i = first + static_cast<int>(threadIdx.x);
    const bool taken = i < seen && (cut == 0 || ranking::key_of(row, i) >= cut);
    const ranking::Scan scan = ranking::scan_block(taken ? 1 : 0, shared->scratch);
    if (taken) selected[before + static_cast<int>(scan.before)] = i;
    before += static_cast<int>(scan.all);
  }
}

[[noreturn]] void refuse(const std::string& what, const std::string& right) {
  throw core::Error(std::string(kOp) + ": " + what + "; " + right + " right");
}

void check_op(const IndexScore& op) {
  constexpr int64_t kMostContext = int64_t{1} << ranking::kIndexBits;
  if (op.head_dim != kDim) refuse("head_dim is " + std::to_string(op.head_dim), "128 is");
  if (op.heads <= 0 || op.heads > kMostHeads || op.heads % 16 != 0)
    refuse(std::to_string(op.heads) + " heads", "a multiple of 16 up to 64 is");
  if (op.block_tokens <= 0 || (op.block_tokens & (op.block_tokens - 1)) != 0)
    refuse("block_tokens is " + std::to_string(op.block_tokens), "a power of two is");
  if (op.most_context >= kMostContext)
    refuse("a context of " + std::to_string(op.most_context), "less than 1048576 is");
  if (op.top_k <= 0) refuse("top_k is " + std::to_string(op.top_k), "1 or more is");
  check_grid((op.most_new + kTileTokens - 1) / kTileTokens, "tiles of new tokens", kOp);
  check_grid(op.batch, "batch", kOp);
}

}  // namespace

size_t index_score_workspace_bytes(const IndexScore& op) {
  return static_cast<size_t>(op.tokens * op.most_context) * sizeof(float);
}

void index_score(const IndexScore& op, const Workspace& workspace, Stream stream) {
  check_op(op);
  if (op.batch == 0 || op.tokens == 0 || op.most_new == 0) return;
  if (workspace.size < index_score_workspace_bytes(op))
    refuse("the workspace has " + std::to_string(workspace.size) + " bytes",
           std::to_string(index_score_workspace_bytes(op)) + " are");
  Arguments args{.q = static_cast<const uint8_t*>(op.q),
                 .weights = op.weights,
                 .keys = static_cast<const uint8_t*>(op.keys),
                 .key_scales = op.key_scales,
                 .blocks = op.blocks,
                 .starts = op.starts,
                 .contexts = op.contexts,
                 .blocks_per_sequence = op.blocks_per_sequence,
                 .heads = static_cast<int>(op.heads),
                 .scores = static_cast<float*>(workspace.bytes),
                 .most_context = op.most_context,
                 .top_k = op.top_k,
                 .selected = op.selected,
                 .counts = op.counts};
  while (1 << args.block_shift < op.block_tokens) ++args.block_shift;
  LaunchShape shape{.grid_x = static_cast<unsigned>((op.most_context + kTileKeys - 1) / kTileKeys),
                    .grid_y = static_cast<unsigned>((op.most_new + kTileTokens - 1) / kTileTokens),
                    .grid_z = static_cast<unsigned>(op.batch),
                    .threads = kThreads,
                    .shared_bytes = kSharedBytes,
                    .programmatic = true};
  launch(score_kernel, shape, stream, args);
  shape.grid_x = static_cast<unsigned>(op.most_new), shape.grid_y = static_cast<unsigned>(op.batch), shape.grid_z = 1;
  shape.threads = ranking::threads_for(op.most_context), shape.shared_bytes = sizeof(ranking::Shared);
  launch(select_kernel, shape, stream, args);
}

}  // namespace drydock::kernels::cuda
