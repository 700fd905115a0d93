#pragma once
// Ranks among the numbers of a row, found by one thread block: sampling's top-k and top-p, an indexer's top-k.
//
// Numbers are ranked by 52-bit keys, no two alike: the number as an ordered integer, then its index, lower first. A set
// of the highest ranks is everything with a key of at least some cut, which is found digit by digit from histograms of
// weights (1 for top-k, chances for top-p) above it.
#include <cmath>
#include <cstdint>

#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda::ranking {

inline constexpr int kMostThreads = 1024;
inline constexpr int kIndexBits = 20;
inline constexpr int kKeyBits = 32 + kIndexBits;
inline constexpr int kDigitBits = 11;
inline constexpr int kBins = 1 << kDigitBits;

__device__ __forceinline__ int threads() { return static_cast<int>(blockDim.x); }

struct Ranked {
  const float* numbers;
  int count;
};

// In the block's shared memory.
struct Shared {
  uint64_t bins[kBins];
  uint64_t scratch[kWarp];
  uint64_t cut, above;
};

// NaN counts as the lowest.
__device__ __forceinline__ uint32_t ordered(float number) {
  if (!(number == number)) number = -INFINITY;
  const uint32_t bits = float_bits(number + 0.0F);  // -0 is +0
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

__device__ __forceinline__ uint64_t key_of(const Ranked& row, int i) {
  constexpr uint32_t kLastIndex = (1U << kIndexBits) - 1U;
  return static_cast<uint64_t>(ordered(row.numbers[i])) << kIndexBits | (kLastIndex - static_cast<uint32_t>(i));
}

__device__ __forceinline__ int index_of(uint64_t key) {
  constexpr uint64_t kLastIndex = (uint64_t{1} << kIndexBits) - 1;
  return static_cast<int>(kLastIndex - (key & kLastIndex));
}

// Of every thread's value: what threads before it have, and the sum of all.
struct Scan {
  uint64_t before, all;
};
__device__ __forceinline__ Scan scan_block(uint64_t value, uint64_t* scratch) {
  uint64_t running = value;
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const uint64_t below = shuffle_up(running, distance);
    if (lane_index() >= distance) running += below;
  }
  if (lane_index() == kWarp - 1) scratch[warp_index()] = running;
  sync_block();
  Scan out{running - value, 0};
  for (int warp = 0; warp < threads() / kWarp; ++warp) {
    if (warp < warp_index()) out.before += scratch[warp];
    out.all += scratch[warp];
  }
  sync_block();
  return out;
}

// The bin in which the sum from the highest bin downwards reaches `wanted`; its own content is not part of `above`.
__device__ __forceinline__ void find_bin(Shared* shared, uint64_t wanted, uint64_t above, int shift, uint64_t prefix) {
  const int each = kBins / threads();
  const int top = kBins - 1 - static_cast<int>(threadIdx.x) * each;  // thread 0 has the highest bins
  uint64_t mine = 0;
  for (int j = 0; j < each; ++j) mine += shared->bins[top - j];
  uint64_t sum = above + scan_block(mine, shared->scratch).before;
  for (int j = 0; j < each; ++j) {
    const uint64_t here = shared->bins[top - j];
    if (sum < wanted && sum + here >= wanted) {
      shared->cut = prefix | static_cast<uint64_t>(top - j) << shift;
      shared->above = sum;
    }
    sum += here;
  }
  sync_block();
}

// The largest cut such that tokens with keys from it on (and not below `floor`) weigh at least `wanted`, which is at
// least 1 and at most what they all weigh.
template <typename Weight>
__device__ __forceinline__ uint64_t find_cut(const Ranked& row, uint64_t floor, uint64_t wanted, Shared* shared,
                                             const Weight& weight) {
  uint64_t prefix = 0, above = 0;
  for (int known = 0; known < kKeyBits;) {
    const int digit = kKeyBits - known < kDigitBits ? kKeyBits - known : kDigitBits;
    const int shift = kKeyBits - known - digit;
    for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += threads()) shared->bins[bin] = 0;
    sync_block();
    for (int i = static_cast<int>(threadIdx.x); i < row.count; i += threads()) {
      const uint64_t key = key_of(row, i);
      const bool same = known == 0 || key >> (shift + digit) == prefix >> (shift + digit);
      const uint64_t value = same && key >= floor ? weight(i) : 0;
      const uint64_t bin = key >> shift & ((uint64_t{1} << digit) - 1);
      if (value != 0)
        atomic_add(reinterpret_cast<unsigned long long*>(&shared->bins[bin]), static_cast<unsigned long long>(value));
    }
    sync_block();
    find_bin(shared, wanted, above, shift, prefix);
    prefix = shared->cut;
    above = shared->above;
    known += digit;
    sync_block();
  }
  return prefix;
}

// A power of two, as the bins are, with some eight numbers a thread.
inline unsigned threads_for(int64_t count) {
  unsigned threads = kWarp;
  while (threads < kMostThreads && threads * 8 < count) threads *= 2;
  return threads;
}

}  // namespace drydock::kernels::cuda::ranking
