#pragma once
// Where an op lies among the ops of its kind, and what physics alone says about its time.
#include <array>
#include <cstdint>

#include "core/hardware.h"
#include "core/op.h"

namespace drydock::perfdb {

inline constexpr int kMaxAxes = 5;
using Coordinates = std::array<float, kMaxAxes>;  // log2 of physical extents; unused tail is zero
using Variant = std::array<int32_t, 3>;           // what tells surfaces of one kind apart; unused tail is zero

// Raised when baseline_us, coordinates or variant change: surfaces fitted to others mean nothing.
inline constexpr int kBaselineVersion = 1;

// Analytic time with stated efficiencies: launch + smooth maximum of (bytes / achieved bandwidth, FLOP / achieved
// rate); for communication latency + bytes over the links, level by level of the network [us].
// The surfaces hold the logarithm of measured time over this.
double baseline_us(const core::Op& op, const core::Hardware& hardware);

// Decoding and MLA: the engines' tables know one arithmetic, bf16; what matters is the format of the KV cache.
bool ignores_arithmetic(core::OpKind kind);

// Axes of the surface of `kind`; 0: the kind has none and the baseline is the answer.
int axis_count(core::OpKind kind);

// The last of them for attention over prompts: how much context lies before the new tokens. Surfaces made from whole
// prompts lack it. -1: the kind has no such axis.
int context_axis(core::OpKind kind);

// gemm              log2 m, n, k
// batched_gemm      log2 m, heads                                               variant k, n
// moe               log2 tokens per expert, local experts, inter                variant hidden, experts, top_k
// prefill_attention log2 mean keys seen, batch x heads, heads per KV head, batch, context before;
//                                                                                variant head_dim, window
// decode_attention  log2 context, batch x KV heads, heads per KV head, batch     variant head_dim, window
// mla_prefill       log2 mean keys seen, batch x heads, batch, context before    variant qk_dim, v_dim
// mla_decode        log2 context, batch, heads                                   variant latent, rope_dim
// gated_delta       log2 new_tokens, batch, v_heads                              variant k_dim, v_dim, decode
// mamba2            log2 new_tokens, batch, heads                                variant head_dim, state, decode
// elementwise       log2 tokens, bytes per token read + written; shipped surfaces have none of the kind
// collectives       log2 bytes, gpus
// dispatch, combine log2 tokens, ep                                             variant hidden, experts, top_k
// Mean keys seen, doubled, is new + 2 cached tokens, which is the length of a whole prompt. Context before is its ratio
// to the new tokens: 0 for a whole prompt, so that such a prompt is at the edge of the axis however long it is, and a
// surface without that axis, which came from whole prompts alone, is this one at the edge.
Coordinates coordinates(const core::Op& op);
Variant variant(const core::Op& op);

// How unlike two variants of one kind are: sum of |log2| of the ratios, a window against none counting 3.
double variant_distance(const Variant& a, const Variant& b);

// Does the group of a communication op leave the NVLink domain and the node? False for other kinds.
bool spans_network(const core::Op& op, const core::Hardware& hardware);

}  // namespace drydock::perfdb
