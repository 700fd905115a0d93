#include "profiler/cpu_launch_attention.h"

#include <memory>
#include <vector>

#include "kernels/cpu.h"
#include "profiler/cpu_operands.h"
#include "profiler/cpu_pages.h"

namespace drydock::profiler {
namespace {

using core::Dtype;
using core::Op;
using kernels::cpu::Threads;

// k and v lie in one pool, v after k.
struct KvState {
  KvState(Dtype kv_dtype, int64_t batch, int64_t tokens, int64_t kv_heads, int64_t head_dim)
      : dtype(stored(kv_dtype)),
        heads(kv_heads),
        dim(head_dim),
        pages(kv_dtype, batch, tokens, 2 * kv_heads * head_dim * width(kv_dtype)),
        contexts(static_cast<size_t>(batch), static_cast<int32_t>(tokens)),
        half(batch * pages.per_sequence * kBlockTokens * kv_heads * head_dim * width(kv_dtype)) {}

  kernels::PagedKv at(int64_t turn) const {
    kernels::PagedKv out;
    out.k = pages.pool.at(turn);
    out.v = pages.pool.at(turn) + half;
    out.dtype = dtype;
    out.kv_heads = heads;
    out.head_dim = dim;
    out.block_tokens = kBlockTokens;
    out.blocks = pages.blocks.data();
    out.blocks_per_sequence = pages.per_sequence;
    return out;
  }
  Dtype dtype;
  int64_t heads, dim;
  Pages pages;
  std::vector<int32_t> contexts;
  int64_t half;  // bytes
};

}  // namespace

Launch launch_decode_attention(const Op& op, Threads& threads) {
  struct State {
    Owned q, out;
    KvState kv;
  };
  const auto& s = op.shape;  // batch, context, heads, kv_heads, head_dim, window
  const auto state =
      std::make_shared<State>(State{Owned(Dtype::bf16, s[0], s[2] * s[4]), Owned(Dtype::bf16, s[0], s[2] * s[4]),
                                    KvState(op.kv_dtype, s[0], s[1], s[3], s[4])});
  return [state, &threads, s](int64_t turn) {
    kernels::DecodeAttention a;
    a.q = state->q.memory.data();
    a.out = state->out.memory.data();
    a.kv = state->kv.at(turn);
    a.contexts = state->kv.contexts.data();
    a.batch = s[0];
    a.heads = s[2];
    a.most_context = s[1];
    a.window = s[5];
    a.scale = softmax_scale(s[4]);
    kernels::cpu::decode_attention(a, threads);
  };
}

Launch launch_prefill_attention(const Op& op, Threads& threads) {
  struct State {
    Owned q, out;
    KvState kv;
    std::vector<int32_t> starts;
  };
  const auto& s = op.shape;  // batch, new_tokens, cached_tokens, heads, kv_heads, head_dim, window
  const int64_t tokens = s[0] * s[1];
  const auto state = std::make_shared<State>(State{Owned(Dtype::bf16, tokens, s[3] * s[5]),
                                                   Owned(Dtype::bf16, tokens, s[3] * s[5]),
                                                   KvState(op.kv_dtype, s[0], s[1] + s[2], s[4], s[5]),
                                                   {}});
  for (int64_t i = 0; i <= s[0]; ++i) state->starts.push_back(static_cast<int32_t>(i * s[1]));
  return [state, &threads, s, tokens](int64_t turn) {
    kernels::PrefillAttention a;
    a.q = state->q.memory.data();
    a.out = state->out.memory.data();
    a.kv = state->kv.at(turn);
    a.starts = state->starts.data();
    a.contexts = state->kv.contexts.data();
    a.tokens = tokens;
    a.batch = s[0];
    a.heads = s[3];
    a.most_new = s[1];
    a.window = s[6];
    a.scale = softmax_scale(s[5]);
    kernels::cpu::prefill_attention(a, threads);
  };
}

}  // namespace drydock::profiler
