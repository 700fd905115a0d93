#pragma once
// The memory-bound ops between the matrix products, each fused with what stands next to it.
#include <cstdint>

#include "kernels/attention.h"
#include "kernels/matrix.h"

namespace drydock::kernels {

// residual += x (where x.data is set); out = residual * weight / sqrt(mean(residual^2) + epsilon). When `out` is fp8
// its scales are written too, by Scaling::row or Scaling::block: largest magnitude / 448.
struct AddRmsNorm {
  Matrix x;                      // (tokens, hidden); data null: nothing is added
  Matrix residual;               // (tokens, hidden), updated in place
  const void* weight = nullptr;  // (hidden), of residual's dtype
  Matrix out;                    // (tokens, hidden)
  float* out_scales = nullptr;   // where out.scales points, writable; null unless fp8
  float epsilon = 1e-6F;
};

// out[t, j] = silu(x[t, j]) * x[t, width + j].
struct SiluMul {
  Matrix x;    // (tokens, 2 * width)
  Matrix out;  // (tokens, width), fp8 as in AddRmsNorm
  float* out_scales = nullptr;
};

// x to fp8 with fresh scales.
struct Quantize {
  Matrix x;    // (rows, cols), fp32 or bf16
  Matrix out;  // (rows, cols), fp8, Scaling::row or block
  float* out_scales = nullptr;
};

// Rotates q and k in place (rotate-half form, as Llama and Qwen have it) and appends k and v to the cache. With q_norm
// and k_norm each head of q and k is first divided by its root mean square and multiplied with the weights (Qwen3).
struct RopeAppend {
  void* qkv = nullptr;                    // (tokens, (heads + 2 * kv.kv_heads) * head_dim): q, k, v side by side
  core::Dtype dtype = core::Dtype::bf16;  // of qkv
  PagedKv kv;
  int64_t tokens = 0, heads = 0;
  const int32_t* positions = nullptr;          // (tokens): position in its sequence, which is also where it is cached
  const int32_t* sequences = nullptr;          // (tokens): row of kv.blocks
  const float* inverse_frequencies = nullptr;  // (head_dim / 2)
  const void* q_norm = nullptr;                // (head_dim), of qkv's dtype; null: not normed
  const void* k_norm = nullptr;                // both or none
  float epsilon = 1e-6F;                       // added to the mean square
  void* q = nullptr;  // (tokens, heads, head_dim), of qkv's dtype: takes the rotated q, and qkv stays as it was; null:
                      // in place
};

// out[t] = table[ids[t]]; an id out of range gives zeros.
struct Embed {
  Matrix table;                  // (vocabulary, hidden)
  const int32_t* ids = nullptr;  // (tokens)
  Matrix out;                    // (tokens, hidden)
};

}  // namespace drydock::kernels
