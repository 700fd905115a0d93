#pragma once
// Attention over a paged KV cache: decode, chunked prefill, and absorbed MLA.
#include <cstdint>

#include "core/dtype.h"

namespace drydock::kernels {

// KV cache of one layer. Token t of sequence s lies in block blocks[s * blocks_per_sequence + t / block_tokens];
// element (block, t % block_tokens, head, d) at ((block * block_tokens + t % block_tokens) * kv_heads + head) *
// head_dim + d, for k and v alike.
struct PagedKv {
  void* k = nullptr;
  void* v = nullptr;
  core::Dtype dtype = core::Dtype::bf16;  // fp32 (CPU only), bf16 or fp8
  float k_scale = 1, v_scale = 1;         // number = element * scale; 1 unless fp8
  int64_t kv_heads = 0, head_dim = 0;     // head_dim: 64, 128 or 256 on a GPU
  int64_t block_tokens = 0;               // a power of two
  const int32_t* blocks = nullptr;        // (batch, blocks_per_sequence)
  int64_t blocks_per_sequence = 0;
};

// One new token per sequence. out = softmax(scale * q k^T) v over the cached tokens, the new one's included (the last).
struct DecodeAttention {
  const void* q = nullptr;                // (batch, heads, head_dim)
  void* out = nullptr;                    // (batch, heads, head_dim)
  core::Dtype dtype = core::Dtype::bf16;  // of q and out: fp32 (CPU only) or bf16
  PagedKv kv;
  const int32_t* contexts = nullptr;  // (batch): tokens in the cache; 0 gives zeros
  int64_t batch = 0, heads = 0;       // heads: a multiple of kv.kv_heads
  int64_t most_context = 0;           // an upper bound of contexts, known to the host
  int64_t window = 0;                 // only the last `window` tokens count; 0: all
  const float* sinks = nullptr;       // (heads): logits that take part in the softmax without a value; may be null
  float scale = 1;
};

// The tokens of one chunk per sequence, causal: token i of a chunk sees the cache up to its own position.
struct PrefillAttention {
  const void* q = nullptr;  // (tokens, heads, head_dim); chunks of the sequences one after another
  void* out = nullptr;      // as q
  core::Dtype dtype = core::Dtype::bf16;
  PagedKv kv;                         // holds the chunk's own keys and values already
  const int32_t* starts = nullptr;    // (batch + 1): first row of each chunk; the last entry is `tokens`
  const int32_t* contexts = nullptr;  // (batch): tokens in the cache with the chunk, which are its last ones
  int64_t tokens = 0, batch = 0, heads = 0;
  int64_t most_new = 0;  // longest chunk, known to the host
  int64_t window = 0;
  const float* sinks = nullptr;
  float scale = 1;
};

// Absorbed multi-head latent attention, one new token per sequence: every head reads the same latent of `latent` and
// the same rotated key of `rope` numbers, stored together. out = softmax(scale * q [latent|rope]^T) latent.
struct MlaDecode {
  const void* q = nullptr;                // (batch, heads, latent + rope)
  void* out = nullptr;                    // (batch, heads, latent)
  core::Dtype dtype = core::Dtype::bf16;  // of q, out and the cache: fp32 (CPU only) or bf16
  const void* cache = nullptr;            // (blocks, block_tokens, latent + rope)
  int64_t block_tokens = 0;
  const int32_t* blocks = nullptr;  // (batch, blocks_per_sequence)
  int64_t blocks_per_sequence = 0;
  const int32_t* contexts = nullptr;  // (batch)
  int64_t batch = 0, heads = 0, latent = 0, rope = 0;
  int64_t most_context = 0;
  float scale = 1;
};

}  // namespace drydock::kernels
