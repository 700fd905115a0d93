#include "core/error.h"
#include "core/text.h"
#include "models/catalogue.h"

namespace drydock::models {
namespace {

using core::Dtype;

bool has_latent_attention(const Architecture& a) {
  for (const LayerKind& kind : a.kinds)
    if (kind.attention.kind == AttentionKind::mla || kind.attention.kind == AttentionKind::sparse_mla) return true;
  return false;
}

// What an engine deploys when it is asked for `dtype`.
Precision deployed(const Architecture& a, Dtype dtype) {
  Precision p = a.precision;
  // MXFP4 experts are how gpt-oss is published; no engine requantizes them, and the rest of it stays in bf16.
  if (a.precision.moe == Dtype::mxfp4 && dtype != Dtype::bf16) return p;
  // FP8 checkpoints of latent-attention models are block-scaled, and so is what engines make of them.
  if (dtype == Dtype::fp8 && (has_latent_attention(a) || a.precision.moe == Dtype::fp8_block)) dtype = Dtype::fp8_block;
  p.gemm = p.moe = p.attention_gemm = dtype;
  p.kv = Dtype::bf16;
  if (dtype == Dtype::nvfp4) {
    p.kv = Dtype::fp8;  // NVFP4 checkpoints carry fp8 KV scales, and engines use them
    // NVFP4 checkpoints of latent-attention models leave the attention projections in bf16.
    if (has_latent_attention(a)) p.attention_gemm = Dtype::bf16;
  }
  if (dtype == Dtype::int4) p.attention_gemm = p.gemm = has_latent_attention(a) ? Dtype::bf16 : Dtype::int4;
  return p;
}

}  // namespace

Precision choose_precision(const Architecture& architecture, std::string_view precision, std::string_view kv) {
  Precision chosen = architecture.precision;
  if (!precision.empty() && precision != "auto") {
    const auto dtype = core::parse_dtype(core::lower_case(precision));
    if (!dtype || *dtype == Dtype::fp32)
      throw core::Error("precision '" + std::string(precision.substr(0, 60)) + "' is none of auto, bf16, fp8, fp8_block, int8, int4, nvfp4 (fp4), mxfp4");
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
