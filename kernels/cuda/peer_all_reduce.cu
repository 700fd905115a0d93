#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/cuda/peer_all_reduce.h"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {
namespace {

constexpr int kThreads = 512;

// Until this block's counterparts on all GPUs have come as well; what they wrote before is seen after. Only blocks of
// the same number meet, so each must touch the same elements before and after.
__device__ __forceinline__ void meet(const Peers& peers) {
  PeerSignals* const mine = peers.signals[peers.rank];
  const unsigned block = blockIdx.x, peer = threadIdx.x;
  memory_fence_system();
  sync_block();
  const uint32_t epoch = mine->epochs[block] + 1;
  if (peer < static_cast<unsigned>(peers.ranks)) {
    store_release_system(&peers.signals[peer]->arrived[block][peers.rank], epoch);
    // A faster peer may be a barrier ahead; counters wrap.
    while (static_cast<int32_t>(load_acquire_system(&mine->arrived[block][peer]) - epoch) < 0) pause();
  }
  sync_block();
  if (threadIdx.x == 0) mine->epochs[block] = epoch;
}

__device__ __forceinline__ Word4 load_peer(const void* from, int64_t word) {
  // Volatile: another GPU wrote it while this kernel ran.
  const volatile uint32_t* const words = static_cast<const volatile uint32_t*>(from) + word * 4;
  Word4 out;
#ifdef DRYDOCK_SIMT_EMULATOR
  for (int i = 0; i < 4; ++i) out[i] = words[i];
#else
  asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "l"(words));
#endif
  return out;
}

template <typename T>
constexpr int kNumbers = 16 / static_cast<int>(sizeof(T));

template <typename T>
__device__ __forceinline__ void add_words(float (&sums)[kNumbers<T>], const Word4& words) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      sums[i] += bits_float(words[i]);
    } else {
      const Float2 pair = unpack_bf16(words[i]);
      sums[2 * i] += pair.x;
      sums[2 * i + 1] += pair.y;
    }
  }
}

template <typename T>
__device__ __forceinline__ Word4 to_words(const float (&sums)[kNumbers<T>]) {
  Word4 words;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4)
      words[i] = float_bits(sums[i]);
    else
      words[i] = pack_bf16(sums[2 * i], sums[2 * i + 1]);
  }
  return words;
}

template <typename T>
__device__ __forceinline__ Word4 sum_of_all(const Peers& peers, int64_t word) {
  float sums[kNumbers<T>] = {};
  for (int peer = 0; peer < peers.ranks; ++peer) add_words<T>(sums, load_peer(peers.inputs[peer], word));
  return to_words<T>(sums);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) one_shot_kernel(Peers peers, Word4* out, int64_t words) {
  dependency_wait();
  meet(peers);
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < words;
       i += static_cast<int64_t>(gridDim.x) * kThreads)
    out[i] = sum_of_all<T>(peers, i);
  meet(peers);
  dependency_launch();
}

// Each GPU sums up one of `ranks` shares into its parts, then collects the others'. Block b reads only what block b of
// the others wrote.
template <typename T>
__global__ void __launch_bounds__(kThreads) two_shot_kernel(Peers peers, Word4* out, int64_t words) {
  dependency_wait();
  const int64_t share = (words + peers.ranks - 1) / peers.ranks;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  auto* const mine = static_cast<Word4*>(peers.parts[peers.rank]);
  meet(peers);
  for (int64_t i = first; i < share && peers.rank * share + i < words; i += step)
    mine[peers.rank * share + i] = sum_of_all<T>(peers, peers.rank * share + i);
  meet(peers);
  for (int turn = 0; turn < peers.ranks; ++turn) {
    const int peer = (peers.rank + turn) % peers.ranks;  // not all from the same GPU at once
    for (int64_t i = first; i < share && peer * share + i < words; i += step)
      out[peer * share + i] = load_peer(peers.parts[peer], peer * share + i);
  }
  meet(peers);
  dependency_launch();
}

template <typename T>
void start(const Peers& peers, void* out, int64_t count, bool one_shot, Stream stream) {
  const int64_t words = count / kNumbers<T>;
  const int64_t share = one_shot ? words : (words + peers.ranks - 1) / peers.ranks;
  const auto blocks = static_cast<unsigned>(std::clamp<int64_t>((share + kThreads - 1) / kThreads, 1, kPeerBlocks));
  const LaunchShape shape{.grid_x = blocks, .threads = kThreads, .programmatic = true};
  launch(one_shot ? one_shot_kernel<T> : two_shot_kernel<T>, shape, stream, peers, static_cast<Word4*>(out), words);
}

}  // namespace

bool prefers_one_shot(int64_t bytes, int ranks) {
  constexpr int64_t kKiB = 1024;
  return ranks <= 2 || bytes < (ranks <= 4 ? 512 * kKiB : 256 * kKiB);
}

void peer_all_reduce(const Peers& peers, void* out, int64_t count, core::Dtype dtype, bool one_shot, Stream stream) {
  if (count <= 0) return;
  if (peers.ranks < 2 || peers.ranks > kMostPeers)
    throw core::Error("peer_all_reduce: " + std::to_string(peers.ranks) + " GPUs; 2 to 8 are right");
  if (dtype != core::Dtype::bf16 && dtype != core::Dtype::fp32)
    throw core::Error("peer_all_reduce: " + std::string(core::name(dtype)) + "; bf16 or fp32 is right");
  const int64_t bytes = count * (dtype == core::Dtype::bf16 ? 2 : 4);
  if (bytes % 16 != 0)
    throw core::Error("peer_all_reduce: " + std::to_string(bytes) + " bytes; a multiple of 16 is right");
  if (dtype == core::Dtype::bf16) return start<Bf16>(peers, out, count, one_shot, stream);
  start<float>(peers, out, count, one_shot, stream);
}

}  // namespace drydock::kernels::cuda
