#include <algorithm>

#include "core/random.h"
#include "kernels/cuda/index_score.h"
#include "kernels/cuda/mla_decode.h"
#include "kernels/cuda/mla_prefill.h"
#include "profiler/cuda/launch.h"
#include "profiler/cuda/operands.h"

namespace drydock::profiler::cuda {

using core::Dtype;
using core::Op;

Candidate mla_candidate(const Op& op, Bench& bench) {
  struct State {
    std::shared_ptr<Memory> memory;
    Pages cache;
    kernels::cuda::AttentionWorkspace scratch;
  };
  const auto& s = op.shape;  // batch, context, heads, latent, rope_dim
  const auto memory = bench.memory();
  const auto state = std::make_shared<State>(
      State{memory, pages(*memory, Dtype::bf16, s[0], s[1], (s[3] + s[4]) * width(Dtype::bf16)), {}});
  kernels::MlaDecode a;
  a.q = memory->random(Dtype::bf16, s[0] * s[2] * (s[3] + s[4]) * 2);
  a.out = memory->zeros(s[0] * s[2] * s[3] * 2);
  a.cache = state->cache.pool.at(0);
  a.block_tokens = kBlockTokens;
  a.blocks = state->cache.blocks;
  a.blocks_per_sequence = state->cache.per_sequence;
  a.contexts = state->cache.contexts;
  a.batch = s[0];
  a.heads = s[2];
  a.latent = s[3];
  a.rope = s[4];
  a.most_context = s[1];
  a.scale = softmax_scale(s[3] + s[4]);
  state->scratch = attention_workspace(*memory, kernels::cuda::mla_workspace_bytes(a));
  Candidate one{"mla_decode", {bench.lane()}, {}, state->cache.pool.copies, state};
  one.launch = [state, a, stream = bench.lane().stream](int64_t turn) {
    kernels::MlaDecode now = a;
    now.cache = state->cache.pool.at(turn);
    kernels::cuda::mla_decode(now, state->scratch, stream);
  };
  return one;
}

// Keys and values have just been projected up: they are activations, which do not rotate.
Candidate mla_prefill_candidate(const Op& op, Bench& bench) {
  const auto& s = op.shape;  // batch, new_tokens, cached_tokens, heads, qk_dim, v_dim
  const auto memory = bench.memory();
  const int64_t keys = s[0] * (s[1] + s[2]);
  std::vector<int32_t> starts, key_starts;
  for (int64_t i = 0; i <= s[0]; ++i) {
    starts.push_back(static_cast<int32_t>(i * s[1]));
    key_starts.push_back(static_cast<int32_t>(i * (s[1] + s[2])));
  }
  kernels::MlaPrefill a;
  a.tokens = s[0] * s[1];
  a.batch = s[0];
  a.heads = s[3];
  a.rope = kRotatedDim;
  a.nope = s[4] - a.rope;
  a.value_dim = s[5];
  a.q = memory->random(Dtype::bf16, a.tokens * s[3] * s[4] * 2);
  a.out = memory->zeros(a.tokens * s[3] * s[5] * 2);
  a.kv = memory->random(Dtype::bf16, keys * s[3] * (a.nope + a.value_dim) * 2);
  a.k_rope = memory->random(Dtype::bf16, keys * a.rope * 2);
  a.rope_stride = a.rope;
  a.starts = memory->put(starts);
  a.key_starts = memory->put(key_starts);
  a.most_new = s[1];
  a.scale = softmax_scale(s[4]);
  Candidate one{"mla_prefill", {bench.lane()}, {}, 1, memory};
  one.launch = [a, stream = bench.lane().stream](int64_t) { kernels::cuda::mla_prefill(a, stream); };
  return one;
}

// The tokens are of one sequence four times as long as what each of them reads, at random places.
Candidate sparse_mla_candidate(const Op& op, Bench& bench) {
  struct State {
    std::shared_ptr<Memory> memory;
    Pages cache;
    kernels::cuda::AttentionWorkspace scratch;
  };
  const auto& s = op.shape;  // tokens, selected, heads, latent, rope_dim
  const auto memory = bench.memory();
  const auto state = std::make_shared<State>(
      State{memory, pages(*memory, Dtype::bf16, 1, kSparseSpread * s[1], (s[3] + s[4]) * width(Dtype::bf16)), {}});
  core::Random random(17);
  std::vector<int32_t> selected;
  for (int64_t i = 0; i < s[0] * s[1]; ++i)  // one of each four, so that none comes twice
    selected.push_back(static_cast<int32_t>(i % s[1] * kSparseSpread + random.integer(0, kSparseSpread - 1)));
  kernels::SparseMla a;
  a.q = memory->random(Dtype::bf16, s[0] * s[2] * (s[3] + s[4]) * 2);
  a.out = memory->zeros(s[0] * s[2] * s[3] * 2);
  a.cache = state->cache.pool.at(0);
  a.block_tokens = kBlockTokens;
  a.blocks = state->cache.blocks;
  a.blocks_per_sequence = state->cache.per_sequence;
  a.sequences = static_cast<int32_t*>(memory->zeros(s[0] * 4));
  a.selected = memory->put(selected);
  a.counts = memory->put(std::vector<int32_t>(static_cast<size_t>(s[0]), static_cast<int32_t>(s[1])));
  a.tokens = s[0];
  a.most_selected = s[1];
  a.heads = s[2];
  a.latent = s[3];
  a.rope = s[4];
  a.scale = softmax_scale(s[3] + s[4]);
  state->scratch = attention_workspace(*memory, kernels::cuda::sparse_mla_workspace_bytes(a));
  Candidate one{"sparse_mla", {bench.lane()}, {}, state->cache.pool.copies, state};
  one.launch = [state, a, stream = bench.lane().stream](int64_t turn) {
    kernels::SparseMla now = a;
    now.cache = state->cache.pool.at(turn);
    kernels::cuda::sparse_mla(now, state->scratch, stream);
  };
  return one;
}

Candidate index_score_candidate(const Op& op, Bench& bench) {
  struct State {
    std::shared_ptr<Memory> memory;
    Pages keys;
    kernels::cuda::Workspace scratch;
  };
  const auto& s = op.shape;  // batch, new_tokens, context, heads, head_dim
  const auto memory = bench.memory();
  const auto state = std::make_shared<State>(State{memory, pages(*memory, Dtype::fp8, s[0], s[2], s[4]), {}});
  std::vector<int32_t> starts;
  for (int64_t i = 0; i <= s[0]; ++i) starts.push_back(static_cast<int32_t>(i * s[1]));
  const auto ones = [&](int64_t count) { return memory->put(std::vector<float>(static_cast<size_t>(count), 1.0F)); };
  kernels::IndexScore a;
  a.tokens = s[0] * s[1];
  a.q = memory->random(Dtype::fp8, a.tokens * s[3] * s[4]);
  a.weights = ones(a.tokens * s[3]);
  a.keys = state->keys.pool.at(0);
  a.key_scales = ones(s[0] * state->keys.per_sequence * kBlockTokens);
  a.block_tokens = kBlockTokens;
  a.blocks = state->keys.blocks;
  a.blocks_per_sequence = state->keys.per_sequence;
  a.starts = memory->put(starts);
  a.contexts = state->keys.contexts;
  a.batch = s[0];
  a.heads = s[3];
  a.head_dim = s[4];
  a.most_new = s[1];
  a.most_context = s[2];
  a.top_k = kIndexTopK;
  a.selected = static_cast<int32_t*>(memory->zeros(a.tokens * kIndexTopK * 4));
  a.counts = static_cast<int32_t*>(memory->zeros(a.tokens * 4));
  const size_t bytes = kernels::cuda::index_score_workspace_bytes(a);
  state->scratch = {nullptr, memory->zeros(static_cast<int64_t>(bytes)), bytes};
  Candidate one{"score+select", {bench.lane()}, {}, state->keys.pool.copies, state};
  one.launch = [state, a, stream = bench.lane().stream](int64_t turn) {
    kernels::IndexScore now = a;
    now.keys = state->keys.pool.at(turn);
    kernels::cuda::index_score(now, state->scratch, stream);
  };
  return one;
}

}  // namespace drydock::profiler::cuda
