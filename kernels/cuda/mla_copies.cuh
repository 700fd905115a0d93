// How absorbed latent attention's queries and tiles of tokens come to a block's shared memory; of mla_decode.cu.
#pragma once
#include <cstdint>

#include "kernels/cuda/attention_combine.cuh"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {
namespace {

constexpr int kLatent = 512, kRope = 64, kWidth = kLatent + kRope;
constexpr int kWarps = 8, kThreads = kWarps * kWarp;
constexpr int kTokens = 32;  // of a tile; one each lane of the softmax
using Row = Tile<kWidth, Bf16>;
// Probabilities of a row lie where its first logits were: half of the 128 bytes of kTokens floats.
using Probabilities = Tile<64, Bf16>;

// How the warps share the logits of a tile: `kGroups` groups of rows, two of tokens, the rest of the warps the dims.
template <int kRowTiles_, int kGroups_, int kStages_, int kBlocksPerSm_>
struct Shape {
  static constexpr int kRowTiles = kRowTiles_, kGroups = kGroups_, kStages = kStages_, kBlocksPerSm = kBlocksPerSm_;
  static constexpr int kRows = 16 * kRowTiles;
  static constexpr int kParts = kWarps / (2 * kGroups);   // of the dims
  static constexpr int kSteps = kWidth / 16 / kParts;     // of 16 dims, of a part
  static constexpr int kWarpTiles = kRowTiles / kGroups;  // row tiles of a warp's logits
  static constexpr int kTileBytes = kTokens * Row::kRowBytes;
  static constexpr int kTilesAt = kRows * Row::kRowBytes;
  static constexpr int kLogitsAt = kTilesAt + kStages * kTileBytes;  // (parts, rows, tokens) floats
  static constexpr int kPartBytes = kRows * kTokens * 4;
  static constexpr int kScalesAt = kLogitsAt + kParts * kPartBytes;  // (rows) floats; at the end 2 (rows)
  static constexpr int kSlotsAt = kScalesAt + 2 * kRows * 4;         // (stages, tokens) offsets
  static constexpr int kFlagAt = kSlotsAt + kStages * kTokens * 8;
  static constexpr int kSharedBytes = kFlagAt + 16;
};
using FewRows = Shape<1, 1, 2, 2>;
using ManyRows = Shape<4, 2, 3, 1>;       // where there are 197 KiB
using ManyRowsSmall = Shape<4, 4, 2, 1>;  // 153 KiB
static_assert(FewRows::kSharedBytes <= 99 * 1024 && ManyRowsSmall::kSharedBytes <= 160 * 1024);

struct Arguments {
  const unsigned char* q = nullptr;
  const unsigned char* cache = nullptr;
  const int32_t* blocks = nullptr;
  int64_t blocks_per_sequence = 0;
  // Of picked tokens: a row of q's sequence, and its positions. Null: row s is sequence s's, and sees all of it.
  const int32_t* sequences = nullptr;
  const int32_t* selected = nullptr;
  int64_t most_selected = 0;
  int block_shift = 0;  // log2(block_tokens)
  int heads = 0;
  float logit_scale = 1;  // to units of log2
  SplitPlan plan;
};

// What a block works on.
struct Work {
  int sequence, first_head, heads;
  TokenRange tokens;
  __device__ __forceinline__ int tiles() const { return (tokens.last - tokens.first + kTokens - 1) / kTokens; }
  __device__ __forceinline__ int64_t place(const Arguments& args, int row) const {
    return static_cast<int64_t>(sequence) * args.heads + first_head + row;
  }
};

// Looks up where a tile's tokens lie in the cache [bytes, -1 beyond the range]; seen after the next barrier.
template <typename S>
__device__ __forceinline__ void look_up(const Arguments& args, const Work& work, unsigned char* shared, int tile) {
  const int row = static_cast<int>(threadIdx.x), token = work.tokens.first + tile * kTokens + row;
  if (row >= kTokens || tile >= work.tiles()) return;
  int64_t offset = -1;
  if (token < work.tokens.last) {
    const bool picked = args.selected != nullptr;
    const int position = picked ? args.selected[work.sequence * args.most_selected + token] : token;
    const int sequence = picked ? args.sequences[work.sequence] : work.sequence;
    const int64_t block = args.blocks[sequence * args.blocks_per_sequence + (position >> args.block_shift)];
    offset = ((block << args.block_shift) + (position & ((1 << args.block_shift) - 1))) * Row::kRowBytes;
  }
  reinterpret_cast<int64_t*>(shared + S::kSlotsAt)[tile % S::kStages * kTokens + row] = offset;
}

// Starts the copies of a tile that was looked up, if there is such a tile; a group of its own either way.
template <typename S>
__device__ __forceinline__ void fetch(const Arguments& args, const Work& work, unsigned char* shared, int tile) {
  if (tile < work.tiles()) {
    const auto* const slots = reinterpret_cast<const int64_t*>(shared + S::kSlotsAt) + tile % S::kStages * kTokens;
    unsigned char* const to = shared + S::kTilesAt + tile % S::kStages * S::kTileBytes;
#pragma unroll 3
    for (int i = 0; i < kTokens * Row::kChunks / kThreads; ++i) {
      const int index = i * kThreads + static_cast<int>(threadIdx.x), row = index / Row::kChunks;
      const int chunk = index % Row::kChunks;
      const int64_t slot = slots[row];
      copy_async_16(to + Row::offset(row, chunk), args.cache + (slot < 0 ? 0 : slot + chunk * 16), slot >= 0);
    }
  }
  copy_async_commit();
}

template <typename S>
__device__ __forceinline__ void fetch_queries(const Arguments& args, const Work& work, unsigned char* shared) {
  for (int i = static_cast<int>(threadIdx.x); i < S::kRows * Row::kChunks; i += kThreads) {
    const int row = i / Row::kChunks, chunk = i % Row::kChunks;
    const bool valid = row < work.heads;
    const int64_t from = valid ? work.place(args, row) * Row::kRowBytes + chunk * 16 : 0;
    copy_async_16(shared + Row::offset(row, chunk), args.q + from, valid);
  }
}

}  // namespace
}  // namespace drydock::kernels::cuda
