#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/cuda/attention_combine.cuh"
#include "kernels/split.h"

namespace drydock::kernels::cuda {
namespace {

constexpr int kCombineWarps = 8;
constexpr int kSlice = 32;  // dims of a block: one each lane
// One block adds up to this much within the time a further kernel takes to start, about 1 us at 100 bytes/ns.
constexpr int64_t kMostFusedBytes = 96 * 1024;

// Block (slice, head, sequence); warps take every eighth split.
__global__ void __launch_bounds__(kCombineWarps* kWarp) combine_kernel(const SplitPlan plan) {
  DRYDOCK_DYNAMIC_SHARED(bytes);
  float* const sums = reinterpret_cast<float*>(bytes);  // (kCombineWarps, kSlice)
  dependency_wait();
  const int sequence = static_cast<int>(blockIdx.z), head = static_cast<int>(blockIdx.y), lane = lane_index();
  const int active = active_splits(plan, visible_tokens(plan, sequence));
  if (active == 1) return;  // written already
  const int64_t row = static_cast<int64_t>(sequence) * plan.heads + head;
  const SoftmaxState* const states = plan.states + row * plan.splits;
  SoftmaxState whole{kMinusInfinity, 0};
  for (int s = lane; s < active; s += kWarp) whole.top = fmaxf(whole.top, states[s].top);
  whole.top = warp_max(whole.top);
  for (int s = lane; s < active; s += kWarp) whole.sum += states[s].sum * weight_of(states[s].top, whole.top);
  whole.sum = warp_sum(whole.sum);

  const int column = static_cast<int>(blockIdx.x) * kSlice + lane;
  float sum = 0;
  for (int s = warp_index(); s < active; s += kCombineWarps)
    sum += weight_of(states[s].top, whole.top) * plan.partials[(row * plan.splits + s) * plan.dim + column];
  sums[warp_index() * kSlice + lane] = sum;
  sync_block();
  if (warp_index() != 0) return;
#pragma unroll
  for (int w = 1; w < kCombineWarps; ++w) sum += sums[w * kSlice + lane];
  plan.out[row * plan.dim + column] = to_bf16(sum * output_factor(plan, head, whole));
}

size_t rounded(size_t bytes) { return (bytes + 255) / 256 * 256; }
size_t state_bytes(const SplitShape& shape, const SplitPlan& plan) {
  return rounded(static_cast<size_t>(shape.batch * shape.heads * plan.splits) * sizeof(SoftmaxState));
}

}  // namespace

SplitPlan choose_plan(const SplitShape& shape, const SplitOptions& options) {
  const int64_t units = shape.batch * shape.units_per_sequence, tile = shape.tile_tokens;
  const int64_t context = std::max<int64_t>(shape.context, 1);
  SplitChoice choice = choose_splits(units, context, tile, multiprocessors(), shape.blocks_per_sm);
  if (options.splits > 0) {
    const int64_t tiles = (context + tile - 1) / tile;
    choice.tokens_per_split = (tiles + options.splits - 1) / options.splits * tile;
    choice.splits = (context + choice.tokens_per_split - 1) / choice.tokens_per_split;
  }
  SplitPlan plan;
  plan.splits = static_cast<int>(choice.splits);
  plan.tokens_per_split = static_cast<int>(std::max(choice.tokens_per_split, tile));
  plan.heads = static_cast<int>(shape.heads);
  plan.dim = static_cast<int>(shape.dim);
  const int64_t bytes = choice.splits * shape.heads_per_unit * shape.dim * 4;
  const bool wanted =
      options.combining == Combining::fused || (options.combining == Combining::automatic && bytes <= kMostFusedBytes);
  plan.fused = wanted && units * sizeof(uint32_t) <= kAttentionCounterBytes;
  return plan;
}

size_t plan_bytes(const SplitShape& shape, const SplitPlan& plan) {
  if (plan.splits == 1) return 0;
  return kAttentionCounterBytes + state_bytes(shape, plan) +
         static_cast<size_t>(shape.batch * shape.heads * plan.splits * shape.dim) * sizeof(float);
}

void place_plan(SplitPlan& plan, const SplitShape& shape, const AttentionWorkspace& workspace, const char* op) {
  const size_t bytes = plan_bytes(shape, plan);
  if (bytes == 0) return;
  if (workspace.data == nullptr || workspace.bytes < bytes)
    throw core::Error(std::string(op) + ": the workspace has " + std::to_string(workspace.bytes) + " bytes; " +
                      std::to_string(bytes) + " are needed");
  auto* const first = static_cast<unsigned char*>(workspace.data);
  plan.counters = reinterpret_cast<uint32_t*>(first);
  plan.states = reinterpret_cast<SoftmaxState*>(first + kAttentionCounterBytes);
  plan.partials = reinterpret_cast<float*>(first + kAttentionCounterBytes + state_bytes(shape, plan));
}

void combine_splits(const SplitPlan& plan, int64_t batch, Stream stream) {
  if (plan.splits == 1 || plan.fused) return;
  LaunchShape shape{.threads = kCombineWarps * kWarp, .programmatic = true};
  shape.grid_x = static_cast<unsigned>(plan.dim / kSlice);
  shape.grid_y = static_cast<unsigned>(plan.heads);
  shape.grid_z = static_cast<unsigned>(batch);
  shape.shared_bytes = kCombineWarps * kSlice * sizeof(float);
  launch(combine_kernel, shape, stream, plan);
}

}  // namespace drydock::kernels::cuda
