#include "models/architecture.h"

namespace drydock::models {
namespace {

double d(int64_t x) { return static_cast<double>(x); }

double attention_parameters(const Attention& a, double hidden) {
  switch (a.kind) {
    case AttentionKind::mla:
    case AttentionKind::sparse_mla: {
      const double q_in = a.q_lora_rank > 0 ? d(a.q_lora_rank) : hidden;
      double n =
          hidden * d(a.q_lora_rank + a.kv_lora_rank + a.rope_dim) + d(a.q_lora_rank + a.kv_lora_rank);  // down, norms
      n += d(a.heads) *
           (d(a.nope_dim + a.rope_dim) * q_in + d(a.nope_dim + a.v_dim) * d(a.kv_lora_rank) + d(a.v_dim) * hidden);
      if (a.kind == AttentionKind::sparse_mla)
        n += d(a.index_heads * a.index_dim) * q_in + hidden * d(a.index_dim + a.index_heads);
      return n;
    }
    case AttentionKind::gated_delta: {
      const double k = d(a.k_heads * a.k_dim), v = d(a.v_heads * a.v_dim_linear);
      return hidden * (2 * k + 2 * v + 2 * d(a.v_heads)) + v * hidden + d(a.conv) * (2 * k + v) + 2 * d(a.v_heads) +
             d(a.v_dim_linear);
    }
    case AttentionKind::mamba2: {
      const double inner = d(a.v_heads * a.v_dim_linear), bc = 2 * d(a.groups * a.state);
      return hidden * (2 * inner + bc + d(a.v_heads)) + inner * hidden + (d(a.conv) + 1) * (inner + bc) +
             3 * d(a.v_heads) + inner;
    }
    default: {
      const double q = d(a.heads * a.head_dim), kv = d(a.kv_heads * a.head_dim);
      double n = hidden * (q * (a.output_gate ? 2 : 1) + 2 * kv) + q * hidden;
      if (a.bias) n += q + 2 * kv + hidden;
      if (a.qk_norm) n += 2 * d(a.head_dim);
      return n + (a.sinks ? d(a.heads) : 0);
    }
  }
}

// All weights of a feed-forward when `experts` of the routed ones are counted.
double ffn_parameters(const Ffn& f, double hidden, double experts) {
  const double matrices = f.gated ? 3 : 2;
  if (!f.is_moe()) return matrices * hidden * d(f.inter);
  double n = experts * matrices * hidden * d(f.inter) + matrices * hidden * d(f.shared_inter) + hidden * d(f.experts);
  if (f.bias) n += experts * (2 * d(f.inter) + hidden) + d(f.experts);
  return n + (f.shared_gate ? hidden : 0);
}

}  // namespace

ParameterCount count_parameters(const Architecture& a) {
  const double hidden = d(a.hidden), table = d(a.vocab) * hidden;
  ParameterCount count{table * (a.tied_embeddings ? 1 : 2) + hidden, table + hidden};
  for (const uint8_t index : a.layer_kinds) {
    const LayerKind& kind = a.kinds[index];
    const double mixer = attention_parameters(kind.attention, hidden) + hidden * (kind.ffn ? 2 : 1);
    count.total += mixer + (kind.ffn ? ffn_parameters(*kind.ffn, hidden, d(kind.ffn->experts)) : 0);
    count.active += mixer + (kind.ffn ? ffn_parameters(*kind.ffn, hidden, d(kind.ffn->top_k)) : 0);
  }
  return count;
}

}  // namespace drydock::models
