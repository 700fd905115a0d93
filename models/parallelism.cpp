#include <algorithm>
#include <string>

#include "models/lowering.h"
#include "models/plan.h"

namespace drydock::models {
namespace {

using Reason = std::optional<std::string>;

std::string count(int64_t n, const char* what) { return std::to_string(n) + " " + what; }

// Either every rank gets whole heads, or heads are replicated over whole groups of ranks.
bool spreads(int64_t heads, int64_t ways) { return heads % ways == 0 || ways % heads == 0; }

Reason attention_reason(const Attention& a, int tp) {
  const std::string over = " do not divide over tp " + std::to_string(tp);
  if (a.kind == AttentionKind::gated_delta || a.kind == AttentionKind::mamba2) {
    if (a.v_heads % tp != 0) return count(a.v_heads, "recurrent heads") + over;
    const int64_t groups = a.kind == AttentionKind::mamba2 ? a.groups : a.k_heads;
    if (!spreads(groups, tp)) return count(groups, "key heads") + over;
    return std::nullopt;
  }
  if (a.heads % tp != 0) return count(a.heads, "heads") + over;
  if (a.kv_heads > 0 && !spreads(a.kv_heads, tp)) return count(a.kv_heads, "KV heads") + over;
  return std::nullopt;
}

// Block-scaled weights can't be cut inside a scale's block.
int64_t granularity(core::Dtype dtype) {
  switch (dtype) {
    case core::Dtype::fp8_block:
      return 128;
    case core::Dtype::nvfp4:
      return 16;
    case core::Dtype::int4:
      return 32;
    default:
      return 1;  // mxfp4 experts are padded by the engines
  }
}

Reason width_reason(int64_t inter, int ways, core::Dtype dtype, const char* what) {
  const int64_t step = granularity(dtype);
  // A partial last block is padded when the width is no multiple of it to begin with.
  if (inter % ways == 0 && (inter % step != 0 || inter / ways % step == 0)) return std::nullopt;
  return std::string(what) + " of " + std::to_string(inter) + " does not divide over " + std::to_string(ways) +
         " in blocks of " + std::to_string(step);
}

Reason moe_reason(const Ffn& f, const Precision& precision, const Parallelism& p) {
  if (int64_t{p.moe_tp} * p.ep != int64_t{p.tp} * p.attention_dp)
    return "moe_tp " + std::to_string(p.moe_tp) + " x ep " + std::to_string(p.ep) + " must be tp " +
           std::to_string(p.tp) + " x attention_dp " + std::to_string(p.attention_dp);
  if (f.experts % p.ep != 0) return count(f.experts, "experts") + " do not divide over ep " + std::to_string(p.ep);
  if (auto reason = width_reason(f.inter, p.moe_tp, precision.moe, "expert width")) return reason;
  if (f.shared_inter > 0 && p.attention_dp == 1)
    return width_reason(f.shared_inter, p.tp, precision.gemm, "shared expert width");
  return std::nullopt;
}

}  // namespace

std::optional<std::string> why_illegal(const Architecture& architecture, const Precision& precision,
                                       const Parallelism& p) {
  if (p.tp < 1 || p.pp < 1 || p.attention_dp < 1 || p.moe_tp < 1 || p.ep < 1)
    return "every parallel size is at least 1";
  if (p.pp > architecture.layers())
    return count(architecture.layers(), "layers") + " are fewer than pp " + std::to_string(p.pp);
  bool any_moe = false;
  for (const LayerKind& kind : architecture.kinds) {
    if (auto reason = attention_reason(kind.attention, p.tp)) return reason;
    if (!kind.ffn) continue;
    any_moe |= kind.ffn->is_moe();
    auto reason = kind.ffn->is_moe() ? moe_reason(*kind.ffn, precision, p)
                                     : width_reason(kind.ffn->inter, p.tp, precision.gemm, "FFN width");
    if (reason) return reason;
  }
  if (!any_moe && (p.moe_tp > 1 || p.ep > 1)) return "the model has no experts: moe_tp and ep must be 1";
  if (!any_moe && p.attention_dp > 1) return "attention_dp is for MoE models; a dense model takes more replicas";
  return std::nullopt;
}

namespace {

// A rank of vLLM's attention DP lies within a node: --data-parallel-size-local counts whole ones.
Reason rank_reason(const Parallelism& p, int gpus_per_node) {
  if (p.attention_dp == 1 || p.gpus() <= gpus_per_node) return std::nullopt;
  const int rank = p.tp * p.pp, local = gpus_per_node / rank, nodes = (p.gpus() + gpus_per_node - 1) / gpus_per_node;
  if (local == 0)
    return "an attention-DP rank of " + std::to_string(rank) + " GPUs is wider than a node of " +
           std::to_string(gpus_per_node);
  if (local * nodes >= p.attention_dp) return std::nullopt;
  return std::to_string(nodes) + " nodes of " + std::to_string(gpus_per_node) + " GPUs hold " +
         std::to_string(local * nodes) + " attention-DP ranks of " + std::to_string(rank) + " GPUs, not " +
         std::to_string(p.attention_dp) + ", as none spans two";
}

// SGLang starts pp / nodes stages on a node, or a stage on nodes / pp of them (entrypoints/engine.py); what does not
// divide would be left out.
Reason stage_reason(const Parallelism& p, int gpus_per_node) {
  const int nodes = (p.gpus() + gpus_per_node - 1) / gpus_per_node;
  if (p.pp % nodes == 0 || nodes % p.pp == 0) return std::nullopt;
  return "pp " + std::to_string(p.pp) + " over " + std::to_string(nodes) +
         " nodes: SGLang puts as many stages on every node, or every stage on as many nodes";
}

}  // namespace

// TensorRT-LLM: with enable_attention_dp every GPU of the group holds attention whole (docs/source/features/
// parallel-strategy.md). vLLM: --enable-expert-parallel spreads experts over all tensor x data parallel ranks
// (docs/serving/expert_parallel_deployment.md). SGLang cuts attention by tp / dp and has --ep-size. The bundled
// runtime: runtime/ranked_engine.h.
std::optional<std::string> why_not_on(Backend backend, const Parallelism& p, int gpus_per_node) {
  if (backend == Backend::trtllm && p.attention_dp > 1 && p.tp > 1)
    return "attention_dp " + std::to_string(p.attention_dp) + " with tp " + std::to_string(p.tp) +
           ": with attention DP TensorRT-LLM keeps attention whole on every GPU, so tp must be 1";
  if (backend == Backend::drydock && (p.pp > 1 || p.attention_dp > 1 || p.ep > 1))
    return "the bundled runtime's engines compute with tp alone: want pp, attention_dp and ep 1";
  if (backend == Backend::drydock && p.tp > std::max(1, gpus_per_node))
    return "the bundled runtime keeps a worker's " + std::to_string(p.tp) + " GPUs in one machine, which has " +
           std::to_string(gpus_per_node);
  if (backend == Backend::sglang) return stage_reason(p, std::max(1, gpus_per_node));
  if (backend != Backend::vllm) return std::nullopt;
  if (p.ep > 1 && p.moe_tp > 1)
    return "ep " + std::to_string(p.ep) + " with moe_tp " + std::to_string(p.moe_tp) +
           ": vLLM spreads experts over all of tp x attention_dp, or cuts each by them";
  return rank_reason(p, std::max(1, gpus_per_node));
}

}  // namespace drydock::models
