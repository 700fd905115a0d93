#pragma once
// Mixers that keep a state for each sequence instead of a cache: the gated delta rule and Mamba-2's state space. In
// both a head's state S is a matrix in fp32, (k_dim, v_dim), and a token with key k, value v and query q does
//   S = decay S + k d^T,   out = S^T q   (+ what depends on v alone)
// where d is v scaled, or what v lacks of what S holds already. Tokens are taken one after another: the form of a
// decoding step, which reads and writes the state once, and of prompts too.
#include <cstdint>

#include "core/dtype.h"

namespace drydock::kernels {

// States of the sequences of one step, updated in place; those of a new sequence are zeros that the caller puts.
struct RecurrentStates {
  float* data = nullptr;           // (slots, heads, k_dim, v_dim)
  const int32_t* slots = nullptr;  // (batch): where each sequence's are, all different
};

// Gated delta rule (Yang, Kautz and Hatamizadeh, "Gated Delta Networks", arXiv 2412.06464, equation 10) as Qwen3-Next
// has it: value head h uses key head h / (v_heads / k_heads), and with x = qkv's parts of a token
//   q = q / (|q| sqrt(k_dim)), k = k / |k|, |x| = sqrt(sum x^2 + 1e-6)
//   decay = exp(-exp(a_log[h]) softplus(a[h] + dt_bias[h])),   d = sigmoid(b[h]) (v - decay S^T k)
struct GatedDelta {
  const void* qkv = nullptr;              // (tokens, 2 k_heads k_dim + v_heads v_dim): q, k, v after the convolution
  core::Dtype dtype = core::Dtype::bf16;  // of qkv, gates and out: fp32 (CPU only) or bf16
  const void* a = nullptr;                // (tokens, v_heads), rows gate_stride elements apart
  const void* b = nullptr;                // the same
  int64_t gate_stride = 0;
  const float* a_log = nullptr;     // (v_heads)
  const float* dt_bias = nullptr;   // (v_heads)
  RecurrentStates states;           // heads: v_heads
  void* out = nullptr;              // (tokens, v_heads, v_dim)
  const int32_t* starts = nullptr;  // (batch + 1): first token of each sequence; the last entry is `tokens`
  int64_t batch = 0, tokens = 0, k_heads = 0, v_heads = 0, k_dim = 0, v_dim = 0;
};

// Mamba-2 (Dao and Gu, "Transformers are SSMs", arXiv 2405.21060, section 3) in its recurrent form: head h uses group
// h / (heads / groups), and with delta = softplus(dt[h] + dt_bias[h])
//   k = B, q = C, decay = exp(-exp(a_log[h]) delta), d = delta x,   out += skip[h] x
struct Mamba2 {
  const void* xbc = nullptr;              // (tokens, heads head_dim + 2 groups state): x, B, C after the convolution
  core::Dtype dtype = core::Dtype::bf16;  // of xbc, dt and out: fp32 (CPU only) or bf16
  const void* dt = nullptr;               // (tokens, heads), rows dt_stride elements apart
  int64_t dt_stride = 0;
  const float* a_log = nullptr;     // (heads)
  const float* dt_bias = nullptr;   // (heads)
  const float* skip = nullptr;      // (heads)
  RecurrentStates states;           // k_dim: state, v_dim: head_dim
  void* out = nullptr;              // (tokens, heads, head_dim)
  const int32_t* starts = nullptr;  // (batch + 1)
  int64_t batch = 0, tokens = 0, heads = 0, head_dim = 0, state = 0, groups = 0;
};

}  // namespace drydock::kernels
