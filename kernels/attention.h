#pragma once
// Attention over a paged KV cache: decode, chunked prefill, and multi-head latent attention (DeepSeek-V2, arXiv
// 2405.04434, section 2.1) in its forms.
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

// The same over tokens that an indexer has picked (DeepSeek-V3.2-Exp, sparse attention): every query token has its own
// list, of which positions are in its sequence's cache.
struct SparseMla {
  const void* q = nullptr;                // (tokens, heads, latent + rope)
  void* out = nullptr;                    // (tokens, heads, latent)
  core::Dtype dtype = core::Dtype::bf16;  // as in MlaDecode
  const void* cache = nullptr;            // (blocks, block_tokens, latent + rope)
  int64_t block_tokens = 0;
  const int32_t* blocks = nullptr;  // (sequences, blocks_per_sequence)
  int64_t blocks_per_sequence = 0;
  const int32_t* sequences = nullptr;  // (tokens): row of `blocks`
  const int32_t* selected = nullptr;   // (tokens, most_selected): different positions in any order
  const int32_t* counts = nullptr;     // (tokens): how many of them count; 0 gives zeros
  int64_t tokens = 0, most_selected = 0, heads = 0, latent = 0, rope = 0;
  float scale = 1;
};

// Which tokens sparse attention reads: DeepSeek-V3.2-Exp's lightning indexer (its report, equation 1). The score of
// token s for query token t is key_scales[s] * sum over heads of weights[t, h] * max(q[t, h] . keys[s], 0); of the
// tokens up to t's own position those with the top_k highest are selected, of equal ones the earlier. NaN counts as the
// lowest.
struct IndexScore {
  const void* q = nullptr;            // (tokens, heads, head_dim), e4m3; chunks of the sequences one after another
  const float* weights = nullptr;     // (tokens, heads): of a head, the scale of its q included
  const void* keys = nullptr;         // (blocks, block_tokens, head_dim), e4m3; holds the chunk's own keys already
  const float* key_scales = nullptr;  // (blocks, block_tokens)
  int64_t block_tokens = 0;           // a power of two
  const int32_t* blocks = nullptr;    // (batch, blocks_per_sequence)
  int64_t blocks_per_sequence = 0;
  const int32_t* starts = nullptr;    // (batch + 1): first row of each chunk; the last entry is `tokens`
  const int32_t* contexts = nullptr;  // (batch): tokens in the cache with the chunk, which are its last ones
  int64_t tokens = 0, batch = 0, heads = 0, head_dim = 0;
  int64_t most_new = 0, most_context = 0;  // upper bounds, known to the host
  int64_t top_k = 0;
  int32_t* selected = nullptr;  // (tokens, top_k): positions in the sequence, rising; as SparseMla takes them
  int32_t* counts = nullptr;    // (tokens): how many there are; the rest of a row is left alone
};

// Not absorbed, over keys and values that have been projected up from the latents for all tokens seen: head h's key is
// its own `nope` numbers and the `rope` that all heads share. Causal: token i of a chunk sees its sequence up to
// itself.
struct MlaPrefill {
  const void* q = nullptr;                // (tokens, heads, nope + rope); chunks of the sequences one after another
  void* out = nullptr;                    // (tokens, heads, value_dim)
  core::Dtype dtype = core::Dtype::bf16;  // of all of these: fp32 (CPU only) or bf16
  const void* kv = nullptr;               // (keys, heads, nope + value_dim), sequence after sequence
  const void* k_rope = nullptr;           // (keys, rope), rows rope_stride elements apart
  int64_t rope_stride = 0;
  const int32_t* starts = nullptr;      // (batch + 1): first row of each chunk; the last entry is `tokens`
  const int32_t* key_starts = nullptr;  // (batch + 1): first key of each sequence, whose last ones are the chunk's own
  int64_t tokens = 0, batch = 0, heads = 0, nope = 0, rope = 0, value_dim = 0;
  int64_t most_new = 0;  // longest chunk, known to the host
  float scale = 1;
};

}  // namespace drydock::kernels
