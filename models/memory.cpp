#include <algorithm>
#include <cmath>

#include "models/lowering.h"

namespace drydock::models {
namespace {

constexpr double kGiB = 1024.0 * 1024 * 1024;
constexpr double kActivationBytes = 2;

double ways_of(int64_t heads, int ways) { return static_cast<double>(std::max<int64_t>(1, (heads + ways - 1) / ways)); }

double projection_elements(const Attention& a, double hidden, int tp) {
  switch (a.kind) {
    case AttentionKind::mla:
    case AttentionKind::sparse_mla: {
      const double heads = ways_of(a.heads, tp), qk = static_cast<double>(a.nope_dim + a.rope_dim);
      const double latent = static_cast<double>(a.kv_lora_rank), q_rank = static_cast<double>(a.q_lora_rank);
      const double down = hidden * (q_rank + latent + static_cast<double>(a.rope_dim));
      const double up =
          heads * (qk * (q_rank > 0 ? q_rank : hidden) + static_cast<double>(a.nope_dim + a.v_dim) * latent);
      const double index = static_cast<double>(a.index_heads * a.index_dim) * q_rank +
                           hidden * static_cast<double>(a.index_dim + a.index_heads);
      return down + up + heads * static_cast<double>(a.v_dim) * hidden + (a.index_heads > 0 ? index : 0);
    }
    case AttentionKind::gated_delta: {
      const double k = ways_of(a.k_heads, tp) * static_cast<double>(a.k_dim),
                   v = ways_of(a.v_heads, tp) * static_cast<double>(a.v_dim_linear);
      return hidden * (2 * k + 2 * v + 2 * ways_of(a.v_heads, tp)) + v * hidden;
    }
    case AttentionKind::mamba2: {
      const double inner = ways_of(a.v_heads, tp) * static_cast<double>(a.v_dim_linear);
      return hidden * (2 * inner + 2 * ways_of(a.groups, tp) * static_cast<double>(a.state) + ways_of(a.v_heads, tp)) +
             inner * hidden;
    }
    default: {
      const double d = static_cast<double>(a.head_dim), q = ways_of(a.heads, tp) * d, kv = ways_of(a.kv_heads, tp) * d;
      return hidden * (q * (a.output_gate ? 2 : 1) + 2 * kv) + q * hidden;
    }
  }
}

double matrices(const Ffn& f) { return f.gated ? 3 : 2; }

double ffn_bytes(const Ffn& f, double hidden, const Precision& precision, const Parallelism& p, double copies) {
  if (!f.is_moe()) return matrices(f) * hidden * ways_of(f.inter, p.tp) * core::bytes_per_element(precision.gemm);
  const double experts =
      copies * static_cast<double>(f.experts) / p.ep * matrices(f) * hidden * ways_of(f.inter, p.moe_tp);
  const double shared = matrices(f) * hidden * ways_of(f.shared_inter, p.attention_dp > 1 ? 1 : p.tp);
  return experts * core::bytes_per_element(precision.moe) +
         (f.shared_inter > 0 ? shared * core::bytes_per_element(precision.gemm) : 0) +
         static_cast<double>(f.experts) * hidden * kActivationBytes;
}

// KV bytes of one token that grow with the sequence, on one GPU.
double token_bytes(const Attention& a, double kv, int tp) {
  switch (a.kind) {
    case AttentionKind::full:
    case AttentionKind::sliding:
    case AttentionKind::chunked:
      return 2 * ways_of(a.kv_heads, tp) * static_cast<double>(a.head_dim) * kv;
    case AttentionKind::mla:
      return static_cast<double>(a.kv_lora_rank + a.rope_dim) * kv;
    // The indexer keeps its fp8 key and one fp32 scale per token (DeepSeek-V3.2).
    case AttentionKind::sparse_mla:
      return static_cast<double>(a.kv_lora_rank + a.rope_dim) * kv + static_cast<double>(a.index_dim + 4);
    default:
      return 0;
  }
}

// fp32 recurrent state and the convolution's last inputs in bf16, of one sequence on one GPU.
double recurrent_bytes(const Attention& a, int tp) {
  const double v = ways_of(a.v_heads, tp) * static_cast<double>(a.v_dim_linear);
  const double tail = static_cast<double>(std::max<int64_t>(0, a.conv - 1)) * kActivationBytes;
  if (a.kind == AttentionKind::gated_delta)
    return v * static_cast<double>(a.k_dim) * 4 +
           tail * (v + 2 * ways_of(a.k_heads, tp) * static_cast<double>(a.k_dim));
  if (a.kind == AttentionKind::mamba2)
    return v * static_cast<double>(a.state) * 4 + tail * (v + 2 * ways_of(a.groups, tp) * static_cast<double>(a.state));
  return 0;
}

double held_tokens(const Attention& a, double context) {
  const bool bounded = a.kind == AttentionKind::sliding || a.kind == AttentionKind::chunked;
  return bounded ? std::min(context, static_cast<double>(a.window)) : context;
}

template <typename Visit>
void for_each_layer(const Architecture& architecture, const Parallelism& p, int stage, const Visit& visit) {
  const size_t layers = architecture.layer_kinds.size(), stages = static_cast<size_t>(p.pp);
  for (size_t i = 0; i < layers; ++i)
    if (i * stages / layers == static_cast<size_t>(stage)) visit(architecture.kinds[architecture.layer_kinds[i]]);
}

// The widest moment of a layer: the residual and its norm, the FFN's two widths, and routed copies of the tokens; the
// last stage also keeps fp32 logits of one full batch of emitting sequences, bounded as engines bound it.
double activation_bytes(const Architecture& architecture, const Parallelism& p, int stage, double tokens) {
  const double hidden = static_cast<double>(architecture.hidden);
  double widest = 0;
  for_each_layer(architecture, p, stage, [&](const LayerKind& kind) {
    if (!kind.ffn) return;
    const Ffn& f = *kind.ffn;
    const double copies = f.is_moe() ? static_cast<double>(f.top_k) * p.attention_dp / p.ep : 1;
    const double inter = ways_of(f.inter, f.is_moe() ? p.moe_tp : p.tp);
    widest = std::max(widest, std::max(copies, 1.0) * (3 * inter + (f.is_moe() ? 2 * hidden : 0)));
  });
  const double logits =
      stage + 1 == p.pp ? std::min(tokens, 1024.0) * static_cast<double>(architecture.vocab) / p.tp * 4 : 0;
  return tokens * (4 * hidden + widest) * kActivationBytes + logits;
}

}  // namespace

StageMemory stage_memory(const Architecture& architecture, const Precision& precision, const Parallelism& p, int stage,
                         int64_t max_tokens, double expert_copies) {
  const double hidden = static_cast<double>(architecture.hidden), kv = core::bytes_per_element(precision.kv);
  StageMemory m;
  for_each_layer(architecture, p, stage, [&](const LayerKind& kind) {
    const Attention& a = kind.attention;
    m.weights += projection_elements(a, hidden, p.tp) * core::bytes_per_element(precision.attention_gemm) +
                 2 * hidden * kActivationBytes;
    if (kind.ffn) m.weights += ffn_bytes(*kind.ffn, hidden, precision, p, expert_copies);
    const bool bounded = a.kind == AttentionKind::sliding || a.kind == AttentionKind::chunked;
    if (bounded)
      m.state_per_sequence += token_bytes(a, kv, p.tp) * static_cast<double>(a.window);
    else
      m.kv_per_token += token_bytes(a, kv, p.tp);
    m.state_per_sequence += recurrent_bytes(a, p.tp);
  });
  const double table = ways_of(architecture.vocab, p.tp) * hidden * kActivationBytes;
  const bool first = stage == 0, last = stage + 1 == p.pp;
  if (first) m.weights += table;
  if (last && !(first && architecture.tied_embeddings)) m.weights += table;
  m.activations = activation_bytes(architecture, p, stage, static_cast<double>(max_tokens));
  // NCCL's channels and the custom all-reduce's buffers take some 0.35-0.4 GiB on 8 GPUs; expert parallel dispatch
  // buffers hold one step's tokens for every rank, twice.
  if (p.gpus() > 1) m.communication = 0.38 * kGiB;
  if (p.attention_dp > 1)
    m.communication += 2 * static_cast<double>(std::min<int64_t>(max_tokens, 1024)) * hidden * kActivationBytes * p.ep;
  // CUDA context 0.5 GiB, libraries and workspaces 0.7 GiB, captured graphs 0.8 GiB: what engines log at start-up.
  m.runtime = 2.0 * kGiB;
  return m;
}

double sequence_kv_bytes(const Architecture& architecture, const Precision& precision, const Parallelism& p, int stage,
                         double context) {
  const double kv = core::bytes_per_element(precision.kv);
  double bytes = 0;
  for_each_layer(architecture, p, stage, [&](const LayerKind& kind) {
    bytes += token_bytes(kind.attention, kv, p.tp) * held_tokens(kind.attention, context) +
             recurrent_bytes(kind.attention, p.tp);
  });
  return bytes;
}

}  // namespace drydock::models
