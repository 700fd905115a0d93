#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/cuda/block_copy.h"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;  // loads in flight a thread

// grid.y walks over the blocks, grid.x over the words of one. `to_pool`: buffer into pool.
__global__ void __launch_bounds__(kThreads)
    copy_blocks(Word4* pool, Word4* buffer, const int32_t* blocks, int64_t count, int64_t words, bool to_pool) {
  dependency_wait();
  for (int64_t i = blockIdx.y; i < count; i += gridDim.y) {
    Word4* const pooled = pool + blocks[i] * words;
    Word4* const packed = buffer + i * words;
    const Word4* const from = to_pool ? packed : pooled;
    Word4* const to = to_pool ? pooled : packed;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads * kUnroll + threadIdx.x;
    for (int64_t w = first; w < words; w += static_cast<int64_t>(gridDim.x) * kThreads * kUnroll) {
      Word4 held[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u)
        if (w + u * kThreads < words) held[u] = load_streaming(from + w + u * kThreads);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u)
        if (w + u * kThreads < words) to[w + u * kThreads] = held[u];
    }
  }
}

void start(const BlockCopy& copy, bool to_pool, Stream stream) {
  if (copy.count <= 0 || copy.block_bytes <= 0) return;
  if (copy.block_bytes % 16 != 0)
    throw core::Error("block copy: block_bytes is " + std::to_string(copy.block_bytes) + "; a multiple of 16 is right");
  const int64_t words = copy.block_bytes / 16;
  LaunchShape shape{.threads = kThreads, .programmatic = true};
  shape.grid_x = static_cast<unsigned>(std::min<int64_t>((words + kThreads * kUnroll - 1) / (kThreads * kUnroll), 64));
  shape.grid_y = static_cast<unsigned>(std::min<int64_t>(copy.count, 65535));
  launch(copy_blocks, shape, stream, static_cast<Word4*>(copy.pool), static_cast<Word4*>(copy.buffer), copy.blocks,
         copy.count, words, to_pool);
}

}  // namespace

void gather_blocks(const BlockCopy& copy, Stream stream) { start(copy, false, stream); }
void scatter_blocks(const BlockCopy& copy, Stream stream) { start(copy, true, stream); }

}  // namespace drydock::kernels::cuda
