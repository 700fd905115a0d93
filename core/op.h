#pragma once
// One kernel launch on one GPU: what a model lowers to, what the database is keyed by, what the profiler measures
// and what the runtime launches.
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/dtype.h"

namespace drydock::core {

// Extents are those one GPU sees, after tensor, expert and data parallelism. `shape` holds them in the order listed.
enum class OpKind : uint8_t {
  gemm,               // m, n, k: (m, k) x (k, n)
  batched_gemm,       // m, n, k, heads: one (m, k) x (k, n) per head (MLA absorption)
  moe,                // tokens, hidden, inter, experts, top_k, ep: gate+up, activation, down of the experts/ep local
                      //   experts; tokens counts all that enter the expert-parallel group; inter is after MoE-TP
  prefill_attention,  // batch, new_tokens, cached_tokens, heads, kv_heads, head_dim, window (0: none); causal
  decode_attention,   // batch, context, heads, kv_heads, head_dim, window (0: none); one new token per sequence
  mla_prefill,        // batch, new_tokens, cached_tokens, heads, qk_dim, v_dim; causal, not absorbed
  mla_decode,         // batch, context, heads, latent, rope_dim; absorbed: every head reads the same latent
  sparse_mla,         // tokens, selected, heads, latent, rope_dim; each token attends to `selected` latents (DSA)
  index_score,        // batch, new_tokens, context, heads, head_dim; DSA's indexer: scores of all context, top-k
  gated_delta,        // batch, new_tokens, k_heads, v_heads, k_dim, v_dim; new_tokens 1: recurrent step
  mamba2,             // batch, new_tokens, heads, head_dim, state, groups; new_tokens 1: recurrent step
  elementwise,        // tokens, read_bytes, written_bytes: bytes per token; norm, activation, rope, embedding, sampling
  all_reduce,         // bytes, gpus: bytes held by each GPU before and after
  all_gather,         // bytes, gpus: bytes held by each GPU after
  reduce_scatter,     // bytes, gpus: bytes held by each GPU before
  all_to_all,         // bytes, gpus: bytes each GPU sends in all
  send_recv,          // bytes, span: one GPU to its peer; span = GPUs between them, inclusive, for the topology
  moe_dispatch,       // tokens, hidden, top_k, experts, ep: tokens of one rank, to the ranks of their experts
  moe_combine,        // as moe_dispatch, the way back, summed
};
inline constexpr int kOpKinds = 19;
inline constexpr int kMaxOpDims = 7;

// `dtype` is the format of the weights (gemm, moe), of the arithmetic (attention) or of the elements (communication).
// `kv_dtype` is that of the KV cache for attention, and equals `dtype` elsewhere.
struct Op {
  OpKind kind{};
  Dtype dtype = Dtype::bf16;
  Dtype kv_dtype = Dtype::bf16;
  std::array<int64_t, kMaxOpDims> shape{};  // unused tail is zero

  auto operator<=>(const Op&) const = default;
};

std::string_view name(OpKind kind);
std::optional<OpKind> parse_op_kind(std::string_view text);

// Names of the extents of `kind`, in the order of Op::shape.
std::span<const std::string_view> dimension_names(OpKind kind);

// An op from its extents; `extents` must have as many as `dimension_names(kind)`.
Op make_op(OpKind kind, Dtype dtype, Dtype kv_dtype, std::initializer_list<int64_t> extents);

bool is_communication(OpKind kind);

// Arithmetic of one launch, a multiply-add counted as two [FLOP]. Causal attention counts only what is not masked.
double flops(const Op& op);

// Least traffic with memory: every operand read once, every result written once [bytes]; for communication the bytes
// one GPU must send on its link (ring or pairwise lower bound, as nccl-tests derives bus bandwidth).
double bytes(const Op& op);

// Stable text of an op, `gemm/fp8/m=1,n=4096,k=4096`; attention adds the KV format: `decode_attention/bf16+fp8/...`.
std::string key(const Op& op);
// The inverse. Throws core::Error naming the part that does not parse.
Op parse_op_key(std::string_view text);

}  // namespace drydock::core
