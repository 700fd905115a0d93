#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/prefill_attention.h"
#include "profiler/cuda/launch.h"
#include "profiler/cuda/operands.h"

namespace drydock::profiler::cuda {
namespace {

using core::Dtype;
using core::Op;

// k and v lie in one pool, v after k.
struct KvState {
  KvState(Bench& bench, Dtype dtype, int64_t batch, int64_t tokens, int64_t heads, int64_t dim)
      : memory(bench.memory()),
        cache(pages(*memory, dtype, batch, tokens, 2 * heads * dim * width(dtype))),
        half(batch * cache.per_sequence * kBlockTokens * heads * dim * width(dtype)) {
    kv.dtype = stored(dtype);
    kv.kv_heads = heads;
    kv.head_dim = dim;
    kv.block_tokens = kBlockTokens;
    kv.blocks = cache.blocks;
    kv.blocks_per_sequence = cache.per_sequence;
  }
  kernels::PagedKv at(int64_t turn) const {
    kernels::PagedKv out = kv;
    out.k = cache.pool.at(turn);
    out.v = cache.pool.at(turn) + half;
    return out;
  }
  std::shared_ptr<Memory> memory;
  Pages cache;
  int64_t half;  // bytes
  kernels::PagedKv kv;
  kernels::cuda::AttentionWorkspace scratch;
};

}  // namespace

Candidate decode_candidate(const Op& op, Bench& bench) {
  const auto& s = op.shape;  // batch, context, heads, kv_heads, head_dim, window
  const auto state = std::make_shared<KvState>(bench, op.kv_dtype, s[0], s[1], s[3], s[4]);
  kernels::DecodeAttention a;
  a.q = state->memory->random(Dtype::bf16, s[0] * s[2] * s[4] * 2);
  a.out = state->memory->zeros(s[0] * s[2] * s[4] * 2);
  a.kv = state->at(0);
  a.contexts = state->cache.contexts;
  a.batch = s[0];
  a.heads = s[2];
  a.most_context = s[1];
  a.window = s[5];
  a.scale = softmax_scale(s[4]);
  state->scratch = attention_workspace(*state->memory, kernels::cuda::decode_workspace_bytes(a));
  Candidate one{"decode_attention", {bench.lane()}, {}, state->cache.pool.copies, state};
  one.launch = [state, a, stream = bench.lane().stream](int64_t turn) {
    kernels::DecodeAttention now = a;
    now.kv = state->at(turn);
    kernels::cuda::decode_attention(now, state->scratch, stream);
  };
  return one;
}

Candidate prefill_candidate(const Op& op, Bench& bench) {
  const auto& s = op.shape;  // batch, new_tokens, cached_tokens, heads, kv_heads, head_dim, window
  const auto state = std::make_shared<KvState>(bench, op.kv_dtype, s[0], s[1] + s[2], s[4], s[5]);
  std::vector<int32_t> starts;
  for (int64_t i = 0; i <= s[0]; ++i) starts.push_back(static_cast<int32_t>(i * s[1]));
  kernels::PrefillAttention a;
  a.tokens = s[0] * s[1];
  a.q = state->memory->random(Dtype::bf16, a.tokens * s[3] * s[5] * 2);
  a.out = state->memory->zeros(a.tokens * s[3] * s[5] * 2);
  a.kv = state->at(0);
  a.starts = state->memory->put(starts);
  a.contexts = state->cache.contexts;
  a.batch = s[0];
  a.heads = s[3];
  a.most_new = s[1];
  a.window = s[6];
  a.scale = softmax_scale(s[5]);
  Candidate one{"prefill_attention", {bench.lane()}, {}, state->cache.pool.copies, state};
  one.launch = [state, a, stream = bench.lane().stream](int64_t turn) {
    kernels::PrefillAttention now = a;
    now.kv = state->at(turn);
    kernels::cuda::prefill_attention(now, stream);
  };
  return one;
}

}  // namespace drydock::profiler::cuda
