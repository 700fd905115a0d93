#include <algorithm>

#include "core/error.h"
#include "core/text.h"
#include "models/catalogue.h"

namespace drydock::models {
namespace {

using core::Dtype;

bool has_mixer(const Architecture& a, std::initializer_list<AttentionKind> wanted) {
  for (const LayerKind& kind : a.kinds)
    if (std::find(wanted.begin(), wanted.end(), kind.attention.kind) != wanted.end()) return true;
  return false;
}

bool has_experts(const Architecture& a) {
  return std::any_of(a.kinds.begin(), a.kinds.end(), [](const LayerKind& k) { return k.ffn && k.ffn->is_moe(); });
}

bool has_latent_attention(const Architecture& a) {
  return has_mixer(a, {AttentionKind::mla, AttentionKind::sparse_mla});
}

// 4-bit checkpoints of these leave the attention projections in bf16.
bool four_bit_keeps_attention(const Architecture& a) {
  return has_latent_attention(a) || has_mixer(a, {AttentionKind::gated_delta}) || a.model_type == "minimax_m2";
}

// What is quantized besides the routed experts. NVFP4 checkpoints of models with a gated delta net also leave the
// shared expert in bf16, and int4 ones of latent-attention models quantize nothing but experts.
Dtype dense_format(const Architecture& a, Dtype dtype) {
  if (dtype == Dtype::nvfp4 && has_mixer(a, {AttentionKind::gated_delta}) && has_experts(a)) return Dtype::bf16;
  if (dtype == Dtype::int4 && has_latent_attention(a)) return Dtype::bf16;
  return dtype;
}

// What an engine deploys when it is asked for `dtype`.
Precision deployed(const Architecture& a, Dtype dtype) {
  // MXFP4 experts are how gpt-oss is published; no engine requantizes them, and the rest of it stays in bf16.
  if (a.precision.moe == Dtype::mxfp4 && dtype != Dtype::bf16) return a.precision;
  // FP8 checkpoints of latent-attention models are block-scaled, and so is what engines make of them.
  if (dtype == Dtype::fp8 && (has_latent_attention(a) || a.precision.moe == Dtype::fp8_block)) dtype = Dtype::fp8_block;
  Precision p;
  p.moe = dtype;
  p.gemm = dense_format(a, dtype);
  const bool four_bit = dtype == Dtype::nvfp4 || dtype == Dtype::int4;
  p.attention_gemm = four_bit && four_bit_keeps_attention(a) ? Dtype::bf16 : p.gemm;
  // NVFP4 checkpoints carry fp8 KV scales, and engines use them; so do those FP8 checkpoints that say so.
  if (dtype == Dtype::nvfp4 || (dtype != Dtype::bf16 && a.precision.kv == Dtype::fp8)) p.kv = Dtype::fp8;
  return p;
}

}  // namespace

Precision choose_precision(const Architecture& architecture, std::string_view precision, std::string_view kv) {
  Precision chosen = architecture.precision;
  if (!precision.empty() && precision != "auto") {
    const auto dtype = core::parse_dtype(core::lower_case(precision));
    if (!dtype || *dtype == Dtype::fp32)
      throw core::Error("precision '" + std::string(precision.substr(0, 60)) +
                        "' is none of auto, bf16, fp8, fp8_block, int8, int4, nvfp4 (fp4), mxfp4");
    chosen = deployed(architecture, *dtype);
  }
  if (kv != "auto") {
    const auto dtype = core::parse_dtype(core::lower_case(kv));
    if (!dtype || (*dtype != Dtype::bf16 && *dtype != Dtype::fp8))
      throw core::Error("KV precision '" + std::string(kv.substr(0, 60)) + "' is none of auto, bf16, fp8");
    chosen.kv = *dtype;
  }
  return chosen;
}

}  // namespace drydock::models
