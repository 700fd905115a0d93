#pragma once
// Decode attention over parts of a sequence: which tokens are whose, where the parts leave their results and how these
// are added up (Flash-Decoding; the softmax of a union, Milakov and Gimelshein, arXiv 1805.02867).
#include <cstdint>

#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/attention_workspace.h"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {

struct SoftmaxState {
  float top, sum;  // largest logit [log2] and sum of exp2(logit - top)
};

// One launch of split attention. `units`: (sequence, tile of heads) pairs, whose splits' blocks count together.
struct SplitPlan {
  int splits = 1;
  int tokens_per_split = 0;
  bool fused = false;
  uint32_t* counters = nullptr;    // (units): finished blocks, when fused
  SoftmaxState* states = nullptr;  // (batch, heads, splits)
  float* partials = nullptr;       // (batch, heads, splits, dim): sums of exp2(logit - top) * value
  // What the sum needs to become the output.
  Bf16* out = nullptr;  // (batch, heads, dim)
  const int32_t* contexts = nullptr;
  const float* sinks = nullptr;
  int heads = 0, dim = 0, window = 0;
  float value_scale = 1;
};

struct TokenRange {
  int first, last;  // [first, last)
};

__device__ __forceinline__ TokenRange visible_tokens(const SplitPlan& plan, int sequence) {
  const int last = plan.contexts[sequence];
  return {plan.window > 0 && last > plan.window ? last - plan.window : 0, last};
}
// Splits of a sequence that have tokens; at least 1.
__device__ __forceinline__ int active_splits(const SplitPlan& plan, TokenRange visible) {
  const int splits = (visible.last - visible.first + plan.tokens_per_split - 1) / plan.tokens_per_split;
  return splits < 1 ? 1 : splits > plan.splits ? plan.splits : splits;
}
// The last split takes what is left, so that a context beyond the host's bound is not cut off.
__device__ __forceinline__ TokenRange split_tokens(const SplitPlan& plan, TokenRange visible, int split, int active) {
  const int first = visible.first + split * plan.tokens_per_split;
  const int end = first + plan.tokens_per_split;
  return {first, split == active - 1 || end > visible.last ? visible.last : end};
}

// The state with a head's sink, if it has one.
__device__ __forceinline__ SoftmaxState with_sink(const SplitPlan& plan, int head, SoftmaxState state) {
  if (plan.sinks == nullptr || state.sum == 0) return state;
  const float sink = plan.sinks[head] * kLog2E, top = fmaxf(state.top, sink);
  return {top, state.sum * fast_exp2(state.top - top) + fast_exp2(sink - top)};
}
// exp2(top - whole), 0 for a part without tokens.
__device__ __forceinline__ float weight_of(float top, float whole) {
  return top == kMinusInfinity ? 0.0F : fast_exp2(top - whole);
}
// What a sum of exp2(logit - top) * value is multiplied by to be the output; 0 when there was no token.
__device__ __forceinline__ float output_factor(const SplitPlan& plan, int head, SoftmaxState state) {
  const SoftmaxState whole = with_sink(plan, head, state);
  return whole.sum == 0 ? 0.0F : weight_of(state.top, whole.top) * plan.value_scale / whole.sum;
}

// Adds the splits of heads [first_head, first_head + count) of a sequence up, by one block of threads.
__device__ __forceinline__ void combine_in_block(const SplitPlan& plan, int sequence, int first_head, int count,
                                                 int active) {
  const int quads = plan.dim / 4;
  for (int i = static_cast<int>(threadIdx.x); i < count * quads; i += static_cast<int>(blockDim.x)) {
    const int head = first_head + i / quads, column = i % quads * 4;
    const int64_t row = static_cast<int64_t>(sequence) * plan.heads + head;
    const SoftmaxState* const states = plan.states + row * plan.splits;
    SoftmaxState whole{kMinusInfinity, 0};
    for (int s = 0; s < active; ++s) whole.top = fmaxf(whole.top, states[s].top);
    float sums[4] = {};
    for (int s = 0; s < active; ++s) {
      const float weight = weight_of(states[s].top, whole.top);
      const auto part = load_vector<4>(plan.partials + (row * plan.splits + s) * plan.dim + column);
      whole.sum += states[s].sum * weight;
#pragma unroll
      for (int k = 0; k < 4; ++k) sums[k] += part[k] * weight;
    }
    const float factor = output_factor(plan, head, whole);
    const Vector<uint32_t, 2> packed{
        {pack_bf16(sums[0] * factor, sums[1] * factor), pack_bf16(sums[2] * factor, sums[3] * factor)}};
    store_vector<2>(reinterpret_cast<uint32_t*>(plan.out + row * plan.dim + column), packed);
  }
}

// Called by every thread of a block that has written its partial results: the last of the `active` blocks of a unit
// adds them up. `flag`: one word of shared memory.
__device__ __forceinline__ void combine_if_last(const SplitPlan& plan, int unit, int sequence, int first_head,
                                                int count, int active, volatile uint32_t* flag) {
  memory_fence();  // the partial results, before the count
  sync_block();
  if (threadIdx.x == 0) *flag = atomic_add(plan.counters + unit, 1U);
  sync_block();
  if (*flag != static_cast<uint32_t>(active - 1)) return;
  memory_fence();  // the count, before the others' partial results
  combine_in_block(plan, sequence, first_head, count, active);
  if (threadIdx.x == 0) plan.counters[unit] = 0;
}

// What a split launch looks like, for the host.
struct SplitShape {
  int64_t batch = 0, heads = 0, dim = 0;
  int64_t units_per_sequence = 0, heads_per_unit = 0;
  int64_t context = 0;      // tokens that count of the longest sequence
  int64_t tile_tokens = 0;  // of a block
  int blocks_per_sm = 1;
};

SplitPlan choose_plan(const SplitShape& shape, const SplitOptions& options);
size_t plan_bytes(const SplitShape& shape, const SplitPlan& plan);
// Points `plan` into the workspace. Throws core::Error when that is too small; `op` names the caller.
void place_plan(SplitPlan& plan, const SplitShape& shape, const AttentionWorkspace& workspace, const char* op);
// The kernel of its own, for all sequences; nothing when the plan has one split or is fused.
void combine_splits(const SplitPlan& plan, int64_t batch, Stream stream);

}  // namespace drydock::kernels::cuda
