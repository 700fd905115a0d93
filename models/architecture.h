#pragma once
// What a model computes: its layers as a few kinds and the order they come in, read from facts only.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace drydock::models {

enum class AttentionKind : uint8_t { full, sliding, chunked, mla, sparse_mla, gated_delta, mamba2 };

// One layer's token mixer. Fields that a kind has no use for are 0.
struct Attention {
  AttentionKind kind = AttentionKind::full;
  int64_t heads = 0, kv_heads = 0;  // query and KV heads
  int64_t head_dim = 0;             // of q, k and v in full, sliding, chunked
  int64_t window = 0;               // tokens seen by sliding, chunk length of chunked
  bool sinks = false;               // one learned logit per head
  bool qk_norm = false;
  bool qk_norm_whole = false;  // over all heads together (MiniMax-M2), so that TP ranks exchange sums of squares
  bool bias = false;           // on the q, k, v and output projections
  bool output_gate = false;    // q projection twice as wide, gate on the output (Qwen3.5)
  // MLA (DeepSeek-V2 report, section 2.1): ranks of the compressed query and KV, head dims without and with RoPE.
  int64_t q_lora_rank = 0, kv_lora_rank = 0, nope_dim = 0, rope_dim = 0, v_dim = 0;
  // Sparse MLA (DeepSeek-V3.2 report): the indexer's heads, its head dim and how many tokens it selects.
  int64_t index_heads = 0, index_dim = 0, index_top_k = 0;
  // Gated delta net (k_heads, v_heads, k_dim, v_dim) and Mamba-2 (v_heads, v_dim, state, groups): state per sequence.
  int64_t k_heads = 0, v_heads = 0, k_dim = 0, v_dim_linear = 0, state = 0, groups = 0, conv = 0;

  bool operator==(const Attention&) const = default;
};

// One layer's feed-forward. experts == 0: dense.
struct Ffn {
  int64_t inter = 0;          // dense: intermediate size; MoE: of one routed expert
  int64_t experts = 0;        // routed experts
  int64_t top_k = 0;          // routed experts a token uses
  int64_t expert_groups = 1;  // of neighbouring experts, from a few of which a token chooses (DeepSeek-V3)
  int64_t shared_inter = 0;   // intermediate size of the shared experts together; 0: none
  bool shared_gate = false;   // a sigmoid gate on the shared expert's output
  bool bias = false;          // on experts and router (gpt-oss)
  bool gated = true;          // gate and up (SwiGLU); false: up only

  bool is_moe() const { return experts > 0; }
  bool operator==(const Ffn&) const = default;
};

struct LayerKind {
  Attention attention;
  std::optional<Ffn> ffn;  // nullopt: a layer with a mixer only (Nemotron-H)
  bool operator==(const LayerKind&) const = default;
};

// Formats a model runs with. Routers, norms, embeddings and the output head stay in bf16.
struct Precision {
  core::Dtype gemm = core::Dtype::bf16;            // weights of attention projections and dense FFNs
  core::Dtype attention_gemm = core::Dtype::bf16;  // of attention projections where they differ (NVFP4 checkpoints)
  core::Dtype moe = core::Dtype::bf16;             // weights of routed experts
  core::Dtype kv = core::Dtype::bf16;              // KV cache
  core::Dtype attention = core::Dtype::bf16;       // arithmetic of prefill attention

  bool operator==(const Precision&) const = default;
};

struct Architecture {
  std::string name;        // canonical, as on the Hugging Face hub
  std::string model_type;  // of config.json
  int64_t hidden = 0, vocab = 0, max_context = 0;
  bool tied_embeddings = false;
  std::vector<LayerKind> kinds;       // distinct kinds of layer
  std::vector<uint8_t> layer_kinds;   // per layer, index into `kinds`
  int64_t mtp_layers = 0;             // multi-token-prediction modules, each a layer of the last kind + a 2h x h GEMM
  Precision precision;                // as published
  std::vector<std::string> warnings;  // one line each, what was assumed while reading

  int64_t layers() const { return static_cast<int64_t>(layer_kinds.size()); }
};

// Parameters of all weights, MTP modules excluded [count]. `active`: those that one token's forward pass multiplies
// with, so the output head is counted and the embedding look-up is not.
struct ParameterCount {
  double total = 0, active = 0;
};
ParameterCount count_parameters(const Architecture& architecture);

}  // namespace drydock::models
