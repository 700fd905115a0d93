#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/cuda/moe.h"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {
namespace {

// Stable counting sort in three launches: each block counts the experts of its part of the pairs; one block turns the
// counts into the first row of each (part, expert); each block ranks its pairs by warp votes and writes.
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kRounds = 4;                     // pairs of a thread
constexpr int64_t kPart = kThreads * kRounds;  // pairs of a block; a warp has kRounds * 32 neighbours

struct Pairs {
  const int32_t* experts;
  int64_t count;
  int first_expert, local_experts;
};

// Index of the expert of pair `i` among the local ones, or -1.
__device__ __forceinline__ int local_expert(const Pairs& pairs, int64_t i) {
  if (i >= pairs.count) return -1;
  const int expert = pairs.experts[i] - pairs.first_expert;
  return expert >= 0 && expert < pairs.local_experts ? expert : -1;
}

// The pair that this thread looks at in round `round`: warps have consecutive pieces.
__device__ __forceinline__ int64_t pair_of(int round) {
  return static_cast<int64_t>(blockIdx.x) * kPart + (warp_index() * kRounds + round) * kWarp + lane_index();
}

// counts (parts, local_experts)
__global__ void __launch_bounds__(kThreads) count_pairs(Pairs pairs, int32_t* counts) {
  DRYDOCK_DYNAMIC_SHARED(bytes);
  int32_t* const mine = reinterpret_cast<int32_t*>(bytes);
  for (int e = static_cast<int>(threadIdx.x); e < pairs.local_experts; e += kThreads) mine[e] = 0;
  dependency_wait();
  sync_block();
  for (int round = 0; round < kRounds; ++round) {
    const int expert = local_expert(pairs, pair_of(round));
    if (expert >= 0) atomic_add(&mine[expert], 1);
  }
  sync_block();
  dependency_launch();
  for (int e = static_cast<int>(threadIdx.x); e < pairs.local_experts; e += kThreads)
    counts[static_cast<int64_t>(blockIdx.x) * pairs.local_experts + e] = mine[e];
}

// Inclusive sum over the block's threads; scratch (32).
__device__ __forceinline__ int scan_block(int value, int32_t* scratch) {
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int below = shuffle_up(value, distance);
    if (lane_index() >= distance) value += below;
  }
  if (lane_index() == kWarp - 1) scratch[warp_index()] = value;
  sync_block();
  for (int warp = 0; warp < warp_index(); ++warp) value += scratch[warp];
  sync_block();
  return value;
}

// counts become the first row of each (part, expert); `starts` the first of each expert. One block of kMostExperts
// threads, one expert each.
__global__ void __launch_bounds__(kMostExperts)
    scan_counts(int32_t* counts, int64_t parts, int experts, int32_t* starts) {
  DRYDOCK_DYNAMIC_SHARED(bytes);
  dependency_wait();
  const int expert = static_cast<int>(threadIdx.x);
  int total = 0;
  if (expert < experts)
    for (int64_t part = 0; part < parts; ++part) total += counts[part * experts + expert];
  const int end = scan_block(total, reinterpret_cast<int32_t*>(bytes));
  int row = end - total;
  if (expert < experts) {
    starts[expert + 1] = end;
    for (int64_t part = 0; part < parts; ++part) {
      const int here = counts[part * experts + expert];
      counts[part * experts + expert] = row;
      row += here;
    }
  }
  if (expert == 0) starts[0] = 0;
  dependency_launch();
}

// Bit l: lane l has the same `value` (of `bits` bits) as this lane.
__device__ __forceinline__ uint32_t same_lanes(int value, int bits) {
  uint32_t same = 0xffffffffU;
  for (int bit = 0; bit < bits; ++bit) {
    const bool set = (value >> bit & 1) != 0;
    const uint32_t votes = ballot(set);
    same &= set ? votes : ~votes;
  }
  return same;
}

// Shared: next (kWarps, local_experts), the row of the warp's next pair of each expert.
__global__ void __launch_bounds__(kThreads, 1)
    place_pairs(Pairs pairs, const int32_t* first_rows, int bits, int32_t* sources, int32_t* rows) {
  DRYDOCK_DYNAMIC_SHARED(bytes);
  int32_t* const next = reinterpret_cast<int32_t*>(bytes);
  int32_t* const mine = next + warp_index() * pairs.local_experts;
  for (int i = static_cast<int>(threadIdx.x); i < kWarps * pairs.local_experts; i += kThreads) next[i] = 0;
  dependency_wait();
  sync_block();
  int experts[kRounds];
  for (int round = 0; round < kRounds; ++round) {
    experts[round] = local_expert(pairs, pair_of(round));
    if (experts[round] >= 0) atomic_add(&mine[experts[round]], 1);
  }
  sync_block();
  for (int e = static_cast<int>(threadIdx.x); e < pairs.local_experts; e += kThreads) {
    int row = first_rows[static_cast<int64_t>(blockIdx.x) * pairs.local_experts + e];
    for (int warp = 0; warp < kWarps; ++warp) {
      const int here = next[warp * pairs.local_experts + e];
      next[warp * pairs.local_experts + e] = row;
      row += here;
    }
  }
  sync_block();
  for (int round = 0; round < kRounds; ++round) {
    const int64_t pair = pair_of(round);
    const int expert = experts[round];
    const uint32_t same = same_lanes(expert + 1, bits);
    const uint32_t below = same & ((1U << static_cast<unsigned>(lane_index())) - 1U);
    const int row = expert < 0 ? -1 : mine[expert] + count_bits(below);
    sync_warp();
    if (expert >= 0 && below == 0) mine[expert] += count_bits(same);
    sync_warp();
    if (pair < pairs.count) rows[pair] = row;
    if (row >= 0) sources[row] = static_cast<int32_t>(pair);
  }
  dependency_launch();
}

int64_t parts_of(const Permute& op) { return (op.tokens * op.top_k + kPart - 1) / kPart; }

}  // namespace

size_t permute_workspace_bytes(const Permute& op) {
  return static_cast<size_t>(parts_of(op) * op.local_experts) * sizeof(int32_t);
}

void permute(const Permute& op, const Workspace& workspace, Stream stream) {
  if (op.local_experts < 1 || op.local_experts > kMostExperts)
    throw core::Error("permute: " + std::to_string(op.local_experts) + " local experts; 1 to 1024 are right");
  if (workspace.size < permute_workspace_bytes(op))
    throw core::Error("permute: the workspace has " + std::to_string(workspace.size) + " bytes; " +
                      std::to_string(permute_workspace_bytes(op)) + " are needed");
  if (op.tokens <= 0) return clear(op.starts, static_cast<size_t>(op.local_experts + 1) * sizeof(int32_t), stream);
  const Pairs pairs{op.experts, op.tokens * op.top_k, static_cast<int>(op.first_expert),
                    static_cast<int>(op.local_experts)};
  auto* const counts = static_cast<int32_t*>(workspace.bytes);
  const auto experts_bytes = static_cast<size_t>(op.local_experts) * sizeof(int32_t);
  LaunchShape shape{.grid_x = static_cast<unsigned>(parts_of(op)),
                    .threads = kThreads,
                    .shared_bytes = experts_bytes,
                    .programmatic = true};
  launch(count_pairs, shape, stream, pairs, counts);
  const LaunchShape scan{.threads = static_cast<unsigned>((op.local_experts + kWarp - 1) / kWarp * kWarp),
                         .shared_bytes = 32 * sizeof(int32_t),
                         .programmatic = true};
  launch(scan_counts, scan, stream, counts, parts_of(op), pairs.local_experts, op.starts);
  shape.shared_bytes = kWarps * experts_bytes;
  int bits = 1;  // of local_experts, since experts are numbered from 1 and 0 is none
  while (op.local_experts >> bits != 0) ++bits;
  launch(place_pairs, shape, stream, pairs, static_cast<const int32_t*>(counts), bits, op.sources, op.rows);
}

}  // namespace drydock::kernels::cuda
