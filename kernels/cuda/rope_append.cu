#include <string>

#include "core/error.h"
#include "kernels/cuda/eight.h"
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

__device__ __forceinline__ void cache_eight(void* cache, bool fp8, float factor, int64_t at, const Eight& eight) {
  if (!fp8) return store_eight(static_cast<Bf16*>(cache) + at, eight);
  store_eight(static_cast<Fp8*>(cache) + at, eight, factor);
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

// How q and k are normed before they are rotated; null weights: not at all.
struct Norms {
  const Bf16* q;
  const Bf16* k;
  float epsilon;
};

// Of q and k of a token: where they are read, and where the rotated ones go.
struct Heads {
  const Bf16* from;  // q and k side by side
  Bf16* q;
  Bf16* k;  // null: only into the cache
};

// 1 / root mean square of the head that this thread and its neighbours hold. All threads of the warp call it; a head is
// held by a power of two of neighbours.
__device__ __forceinline__ float head_factor(const Eight& low, const Eight& high, int head_dim, float epsilon) {
  float squares = 0;
#pragma unroll
  for (int j = 0; j < kWide; ++j) squares += low.values[j] * low.values[j] + high.values[j] * high.values[j];
  for (int mask = head_dim / 2 / kWide / 2; mask > 0; mask /= 2) squares += shuffle_xor(squares, mask);
  return reciprocal_sqrt(squares / static_cast<float>(head_dim) + epsilon);
}

__device__ __forceinline__ void scale_eight(Eight& eight, const Bf16* weight, float factor) {
  const Eight weights = load_eight(weight);
#pragma unroll
  for (int j = 0; j < kWide; ++j) eight.values[j] *= factor * weights.values[j];
}

// Norms and rotates 8 pairs (d, d + head_dim / 2) of one q or k head; k goes to the cache as well. All threads of a
// warp call it; those that are not `active` only help with the norm.
__device__ __forceinline__ void rotate(const Heads& row, int heads, int item, bool active, int position, int sequence,
                                       const float* frequencies, const Norms& norms, const Cache& cache) {
  const int half = cache.head_dim / 2, head = item / (half / kWide), d = item % (half / kWide) * kWide;
  const Bf16* const from = row.from + head * cache.head_dim + d;
  Eight low{}, high{};
  if (active) low = load_eight(from), high = load_eight(from + half);
  if (norms.q != nullptr) {
    const float factor = head_factor(low, high, cache.head_dim, norms.epsilon);
    const Bf16* const weight = (head < heads ? norms.q : norms.k) + d;
    scale_eight(low, weight, factor);
    scale_eight(high, weight + half, factor);
  }
  if (!active) return;
#pragma unroll
  for (int j = 0; j < kWide; ++j) {
    const float angle = reduced_angle(static_cast<float>(position), frequencies[d + j]);
    const float sine = fast_sin(angle), cosine = fast_cos(angle), x = low.values[j], y = high.values[j];
    low.values[j] = x * cosine - y * sine;
    high.values[j] = y * cosine + x * sine;
  }
  Bf16* const base = head < heads ? row.q + head * cache.head_dim : row.k;
  if (base != nullptr) {
    Bf16* const to = base + (head < heads ? 0 : (head - heads) * cache.head_dim) + d;
    store_eight(to, low);
    store_eight(to + half, high);
  }
  if (head < heads) return;
  const int64_t cached = cache_row(cache, position, sequence, head - heads) + d;
  cache_eight(cache.k, cache.fp8, cache.k_factor, cached, low);
  cache_eight(cache.k, cache.fp8, cache.k_factor, cached + half, high);
}

// One token a block row of the grid; its work items are the rotations of q and k, then the copies of v.
__global__ void __launch_bounds__(kThreads)
    rope_append_kernel(Bf16* qkv, Bf16* q, int heads, const int32_t* positions, const int32_t* sequences,
                       const float* frequencies, Norms norms, Cache cache) {
  const int64_t token = blockIdx.x;
  const int rotations = (heads + cache.kv_heads) * (cache.head_dim / 2 / kWide);
  const int copies = cache.kv_heads * (cache.head_dim / kWide);
  dependency_wait();
  const int position = positions[token], sequence = sequences[token];
  Bf16* const row = qkv + token * (heads + 2 * cache.kv_heads) * cache.head_dim;
  const Heads at{row, q != nullptr ? q + token * heads * cache.head_dim : row,
                 q != nullptr ? nullptr : row + heads * cache.head_dim};
  // Whole warps stay in the loop together, as norms need.
  for (int first = static_cast<int>(blockIdx.y) * kThreads; first < rotations + copies;
       first += static_cast<int>(gridDim.y) * kThreads) {
    const int item = first + static_cast<int>(threadIdx.x);
    const bool rotates = item < rotations;
    rotate(at, heads, rotates ? item : 0, rotates, position, sequence, frequencies, norms, cache);
    if (rotates || item >= rotations + copies) continue;
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
  if ((op.q_norm == nullptr) != (op.k_norm == nullptr))
    throw core::Error("rope_append: only one of q and k has a norm; both or none is right");
  const int64_t sharers = op.kv.head_dim / (2 * kWide);
  if (op.q_norm != nullptr && (sharers > kWarp || (sharers & (sharers - 1)) != 0))
    throw core::Error("rope_append: heads of " + std::to_string(op.kv.head_dim) +
                      " numbers are normed; 16, 32, 64, 128, 256 or 512 is right");
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
  launch(rope_append_kernel, shape, stream, static_cast<Bf16*>(op.qkv), static_cast<Bf16*>(op.q),
         static_cast<int>(op.heads), op.positions, op.sequences, op.inverse_frequencies,
         Norms{static_cast<const Bf16*>(op.q_norm), static_cast<const Bf16*>(op.k_norm), op.epsilon}, cache);
}

}  // namespace drydock::kernels::cuda
