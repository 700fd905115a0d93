#include <string>

#include "core/error.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/small_ops.h"

namespace drydock::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWide = 8;  // numbers a thread moves at once

struct Cache {
  void* k;
  void* v;
  bool fp8;
  float k_factor, v_factor;  // 1 / scale
  int kv_heads, head_dim, block_tokens;
  const int32_t* blocks;
  int64_t blocks_per_sequence;
};

struct Eight {
  float values[kWide];
};

__device__ __forceinline__ Eight load_eight(const Bf16* from) {
  const Word4 words = *reinterpret_cast<const Word4*>(from);
  Eight out;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const Float2 pair = unpack_bf16(words[j]);
    out.values[2 * j] = pair.x;
    out.values[2 * j + 1] = pair.y;
  }
  return out;
}
__device__ __forceinline__ void store_eight(Bf16* to, const Eight& eight) {
  Word4 words;
#pragma unroll
  for (int j = 0; j < 4; ++j) words[j] = pack_bf16(eight.values[2 * j], eight.values[2 * j + 1]);
  *reinterpret_cast<Word4*>(to) = words;
}
__device__ __forceinline__ void cache_eight(void* cache, bool fp8, float factor, int64_t at, const Eight& eight) {
  if (!fp8) return store_eight(static_cast<Bf16*>(cache) + at, eight);
  Vector<uint16_t, 4> pairs;
#pragma unroll
  for (int j = 0; j < 4; ++j) pairs[j] = pack_fp8(eight.values[2 * j] * factor, eight.values[2 * j + 1] * factor);
  *reinterpret_cast<Vector<uint16_t, 4>*>(static_cast<Fp8*>(cache) + at) = pairs;
}

// position * frequency modulo 2 pi to about 2^-21 for any position: the product's rounding error and 2 pi's second half
// are carried along, since at position 10^6 a float step is 0.06.
__device__ __forceinline__ float reduced_angle(float position, float frequency) {
  const float product = position * frequency;
  const float lost = fmaf(position, frequency, -product);
  const float turns = rintf(product * 0.15915494309F);
  float angle = fmaf(-turns, 6.28318548203F, product);  // 2 pi rounded to fp32 ...
  angle = fmaf(turns, 1.74845553146e-7F, angle);        // ... is this much too large
  return angle + lost;
}

// First element of (token, kv head) in the cache.
__device__ __forceinline__ int64_t cache_row(const Cache& cache, int position, int sequence, int head) {
  const int64_t block = cache.blocks[sequence * cache.blocks_per_sequence + position / cache.block_tokens];
  return ((block * cache.block_tokens + position % cache.block_tokens) * cache.kv_heads + head) * cache.head_dim;
}

// Rotates 8 pairs (d, d + head_dim / 2) of one q or k head; k goes to the cache as well.
__device__ __forceinline__ void rotate(Bf16* row, int heads, int item, int position, int sequence,
                                       const float* frequencies, const Cache& cache) {
  const int half = cache.head_dim / 2, head = item / (half / kWide), d = item % (half / kWide) * kWide;
  Bf16* const at = row + head * cache.head_dim + d;
  Eight low = load_eight(at), high = load_eight(at + half);
#pragma unroll
  for (int j = 0; j < kWide; ++j) {
    const float angle = reduced_angle(static_cast<float>(position), frequencies[d + j]);
    const float sine = fast_sin(angle), cosine = fast_cos(angle), x = low.values[j], y = high.values[j];
    low.values[j] = x * cosine - y * sine;
    high.values[j] = y * cosine + x * sine;
  }
  store_eight(at, low);
  store_eight(at + half, high);
  if (head < heads) return;
  const int64_t cached = cache_row(cache, position, sequence, head - heads) + d;
  cache_eight(cache.k, cache.fp8, cache.k_factor, cached, low);
  cache_eight(cache.k, cache.fp8, cache.k_factor, cached + half, high);
}

// One token a block row of the grid; its work items are the rotations of q and k, then the copies of v.
__global__ void __launch_bounds__(kThreads)
    rope_append_kernel(Bf16* qkv, int heads, const int32_t* positions, const int32_t* sequences,
                       const float* frequencies, Cache cache) {
  const int64_t token = blockIdx.x;
  const int rotations = (heads + cache.kv_heads) * (cache.head_dim / 2 / kWide);
  const int copies = cache.kv_heads * (cache.head_dim / kWide);
  dependency_wait();
  const int position = positions[token], sequence = sequences[token];
  Bf16* const row = qkv + token * (heads + 2 * cache.kv_heads) * cache.head_dim;
  const int first = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  for (int item = first; item < rotations + copies; item += static_cast<int>(gridDim.y) * kThreads) {
    if (item < rotations) {
      rotate(row, heads, item, position, sequence, frequencies, cache);
      continue;
    }
    const int element = (item - rotations) * kWide;
    const int64_t to = cache_row(cache, position, sequence, element / cache.head_dim) + element % cache.head_dim;
    const Eight v = load_eight(row + (heads + cache.kv_heads) * cache.head_dim + element);
    cache_eight(cache.v, cache.fp8, cache.v_factor, to, v);
  }
  dependency_launch();
}

void check(const RopeAppend& op) {
  if (op.dtype != core::Dtype::bf16)
    throw core::Error("rope_append: qkv is " + std::string(core::name(op.dtype)) + "; bf16 is right on a GPU");
  if (op.kv.dtype != core::Dtype::bf16 && op.kv.dtype != core::Dtype::fp8)
    throw core::Error("rope_append: the cache is " + std::string(core::name(op.kv.dtype)) + "; bf16 or fp8 is right");
  if (op.kv.head_dim % (2 * kWide) != 0 || op.kv.head_dim <= 0)
    throw core::Error("rope_append: head_dim is " + std::to_string(op.kv.head_dim) + "; a multiple of 16 is right");
}

}  // namespace

void rope_append(const RopeAppend& op, Stream stream) {
  if (op.tokens <= 0) return;
  check(op);
  const bool fp8 = op.kv.dtype == core::Dtype::fp8;
  const Cache cache{op.kv.k,
                    op.kv.v,
                    fp8,
                    fp8 ? 1 / op.kv.k_scale : 1,
                    fp8 ? 1 / op.kv.v_scale : 1,
                    static_cast<int>(op.kv.kv_heads),
                    static_cast<int>(op.kv.head_dim),
                    static_cast<int>(op.kv.block_tokens),
                    op.kv.blocks,
                    op.kv.blocks_per_sequence};
  const int64_t items = (op.heads + 3 * op.kv.kv_heads) * op.kv.head_dim / (2 * kWide);
  // Few tokens: one item a thread, for latency; many: one block a token.
  const int64_t spread = op.tokens >= 512 ? 1 : (items + kThreads - 1) / kThreads;
  const LaunchShape shape{.grid_x = static_cast<unsigned>(op.tokens),
                          .grid_y = static_cast<unsigned>(spread),
                          .threads = kThreads,
                          .programmatic = true};
  launch(rope_append_kernel, shape, stream, static_cast<Bf16*>(op.qkv), static_cast<int>(op.heads), op.positions,
         op.sequences, op.inverse_frequencies, cache);
}

}  // namespace drydock::kernels::cuda
