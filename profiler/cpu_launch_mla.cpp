#include <memory>
#include <vector>

#include "core/random.h"
#include "kernels/cpu.h"
#include "profiler/cpu_launch_attention.h"
#include "profiler/cpu_pages.h"

namespace drydock::profiler {

using core::Dtype;
using core::Op;
using kernels::cpu::Threads;

Launch launch_mla_decode(const Op& op, Threads& threads) {
  struct State {
    Owned q, out;
    Pages pages;
    std::vector<int32_t> contexts;
  };
  const auto& s = op.shape;  // batch, context, heads, latent, rope_dim
  const auto state = std::make_shared<State>(
      State{Owned(Dtype::bf16, s[0], s[2] * (s[3] + s[4])), Owned(Dtype::bf16, s[0], s[2] * s[3]),
            Pages(Dtype::bf16, s[0], s[1], (s[3] + s[4]) * width(Dtype::bf16)),
            std::vector<int32_t>(static_cast<size_t>(s[0]), static_cast<int32_t>(s[1]))});
  return [state, &threads, s](int64_t turn) {
    kernels::MlaDecode a;
    a.q = state->q.memory.data();
    a.out = state->out.memory.data();
    a.cache = state->pages.pool.at(turn);
    a.block_tokens = kBlockTokens;
    a.blocks = state->pages.blocks.data();
    a.blocks_per_sequence = state->pages.per_sequence;
    a.contexts = state->contexts.data();
    a.batch = s[0];
    a.heads = s[2];
    a.latent = s[3];
    a.rope = s[4];
    a.most_context = s[1];
    a.scale = softmax_scale(s[3] + s[4]);
    kernels::cpu::mla_decode(a, threads);
  };
}

// Keys and values have just been projected up: they are activations, which do not rotate.
Launch launch_mla_prefill(const Op& op, Threads& threads) {
  struct State {
    Owned q, out, kv, rope;
    std::vector<int32_t> starts, key_starts;
  };
  const auto& s = op.shape;  // batch, new_tokens, cached_tokens, heads, qk_dim, v_dim
  const int64_t rope = rotated_dim(s[4]), tokens = s[0] * s[1], keys = s[0] * (s[1] + s[2]);
  const auto state = std::make_shared<State>(State{Owned(Dtype::bf16, tokens, s[3] * s[4]),
                                                   Owned(Dtype::bf16, tokens, s[3] * s[5]),
                                                   Owned(Dtype::bf16, keys, s[3] * (s[4] - rope + s[5])),
                                                   Owned(Dtype::bf16, keys, std::max<int64_t>(rope, 1)),
                                                   {},
                                                   {}});
  for (int64_t i = 0; i <= s[0]; ++i) {
    state->starts.push_back(static_cast<int32_t>(i * s[1]));
    state->key_starts.push_back(static_cast<int32_t>(i * (s[1] + s[2])));
  }
  return [state, &threads, s, rope, tokens](int64_t) {
    kernels::MlaPrefill a;
    a.q = state->q.memory.data();
    a.out = state->out.memory.data();
    a.kv = state->kv.memory.data();
    a.k_rope = state->rope.memory.data();
    a.rope_stride = std::max<int64_t>(rope, 1);
    a.starts = state->starts.data();
    a.key_starts = state->key_starts.data();
    a.tokens = tokens;
    a.batch = s[0];
    a.heads = s[3];
    a.nope = s[4] - rope;
    a.rope = rope;
    a.value_dim = s[5];
    a.most_new = s[1];
    a.scale = softmax_scale(s[4]);
    kernels::cpu::mla_prefill(a, threads);
  };
}

// The tokens are of one sequence four times as long as what each of them reads, at random places.
Launch launch_sparse_mla(const Op& op, Threads& threads) {
  struct State {
    Owned q, out;
    Pages pages;
    std::vector<int32_t> sequences, selected, counts;
  };
  const auto& s = op.shape;  // tokens, selected, heads, latent, rope_dim
  const int64_t context = kSparseSpread * s[1];
  const auto state =
      std::make_shared<State>(State{Owned(Dtype::bf16, s[0], s[2] * (s[3] + s[4])),
                                    Owned(Dtype::bf16, s[0], s[2] * s[3]),
                                    Pages(Dtype::bf16, 1, context, (s[3] + s[4]) * width(Dtype::bf16)),
                                    std::vector<int32_t>(static_cast<size_t>(s[0])),
                                    {},
                                    std::vector<int32_t>(static_cast<size_t>(s[0]), static_cast<int32_t>(s[1]))});
  core::Random random(17);
  for (int64_t i = 0; i < s[0] * s[1]; ++i)  // one of each four, so that none comes twice
    state->selected.push_back(static_cast<int32_t>(i % s[1] * kSparseSpread + random.integer(0, kSparseSpread - 1)));
  return [state, &threads, s](int64_t turn) {
    kernels::SparseMla a;
    a.q = state->q.memory.data();
    a.out = state->out.memory.data();
    a.cache = state->pages.pool.at(turn);
    a.block_tokens = kBlockTokens;
    a.blocks = state->pages.blocks.data();
    a.blocks_per_sequence = state->pages.per_sequence;
    a.sequences = state->sequences.data();
    a.selected = state->selected.data();
    a.counts = state->counts.data();
    a.tokens = s[0];
    a.most_selected = s[1];
    a.heads = s[2];
    a.latent = s[3];
    a.rope = s[4];
    a.scale = softmax_scale(s[3] + s[4]);
    kernels::cpu::sparse_mla(a, threads);
  };
}

Launch launch_index_score(const Op& op, Threads& threads) {
  struct State {
    Owned q;
    Pages keys;
    std::vector<float> weights, scales;
    std::vector<int32_t> starts, contexts, selected, counts;
  };
  const auto& s = op.shape;  // batch, new_tokens, context, heads, head_dim
  const int64_t tokens = s[0] * s[1];
  const auto state =
      std::make_shared<State>(State{Owned(Dtype::fp8, tokens, s[3] * s[4]),
                                    Pages(Dtype::fp8, s[0], s[2], s[4]),
                                    std::vector<float>(static_cast<size_t>(tokens * s[3]), 1.0F),
                                    {},
                                    {},
                                    std::vector<int32_t>(static_cast<size_t>(s[0]), static_cast<int32_t>(s[2])),
                                    std::vector<int32_t>(static_cast<size_t>(tokens * kIndexTopK)),
                                    std::vector<int32_t>(static_cast<size_t>(tokens))});
  state->scales.assign(state->keys.blocks.size() * kBlockTokens, 1.0F);
  for (int64_t i = 0; i <= s[0]; ++i) state->starts.push_back(static_cast<int32_t>(i * s[1]));
  return [state, &threads, s, tokens](int64_t turn) {
    kernels::IndexScore a;
    a.q = state->q.memory.data();
    a.weights = state->weights.data();
    a.keys = state->keys.pool.at(turn);
    a.key_scales = state->scales.data();
    a.block_tokens = kBlockTokens;
    a.blocks = state->keys.blocks.data();
    a.blocks_per_sequence = state->keys.per_sequence;
    a.starts = state->starts.data();
    a.contexts = state->contexts.data();
    a.tokens = tokens;
    a.batch = s[0];
    a.heads = s[3];
    a.head_dim = s[4];
    a.most_new = s[1];
    a.most_context = s[2];
    a.top_k = kIndexTopK;
    a.selected = state->selected.data();
    a.counts = state->counts.data();
    kernels::cpu::index_score(a, threads);
  };
}

}  // namespace drydock::profiler
