#include <cmath>
#include <string>

#include "core/error.h"
#include "kernels/cuda/ranking.cuh"
#include "kernels/cuda/sampling.h"
#include "kernels/cuda/simt.h"
#include "kernels/philox.h"

namespace drydock::kernels::cuda {
namespace {

using ranking::find_cut, ranking::index_of, ranking::key_of, ranking::kIndexBits, ranking::kMostThreads;
using ranking::Ranked, ranking::scan_block, ranking::Shared, ranking::threads, ranking::threads_for;

constexpr float kOne = 1099511627776.0F;  // 2^40: the chance of the likeliest token

struct Row : Ranked {
  float largest, inverse_temperature;
};

__device__ __forceinline__ uint64_t chance_of(const Row& row, int i) {
  const float logit = row.numbers[i];
  if (!(logit == logit)) return 0;
  if (logit == row.largest) return static_cast<uint64_t>(kOne);  // -infinity minus itself, too
  return static_cast<uint64_t>(expf((logit - row.largest) * row.inverse_temperature) * kOne);
}

template <typename Weight>
__device__ __forceinline__ uint64_t sum_from(const Row& row, uint64_t cut, Shared* shared, const Weight& weight) {
  uint64_t sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < row.count; i += threads())
    if (key_of(row, i) >= cut) sum += weight(i);
  return scan_block(sum, shared->scratch).all;
}

// Largest logit; its lowest index in the scratch of the key.
__device__ __forceinline__ uint64_t largest_key(const Row& row, Shared* shared) {
  uint64_t largest = 0;
  for (int i = static_cast<int>(threadIdx.x); i < row.count; i += threads()) {
    const uint64_t key = key_of(row, i);
    largest = key > largest ? key : largest;
  }
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const uint64_t other = shuffle_xor(largest, mask);
    largest = other > largest ? other : largest;
  }
  if (lane_index() == 0) shared->scratch[warp_index()] = largest;
  sync_block();
  for (int warp = 0; warp < threads() / kWarp; ++warp)
    largest = shared->scratch[warp] > largest ? shared->scratch[warp] : largest;
  sync_block();
  return largest;
}

// floor(all * u / 2^24) for a 24-bit u.
__device__ __forceinline__ uint64_t part_of(uint64_t all, uint32_t u) {
  return (all >> 24U) * u + (((all & 0xffffffU) * u) >> 24U);
}

// The first token, by index, at which the chances from `cut` on sum to more than `target`. Each thread sums up a
// stretch of neighbours; the one in which the sum is reached walks through its own.
__device__ __forceinline__ void draw(const Row& row, uint64_t cut, uint64_t target, Shared* shared, int32_t* token) {
  const int each = (row.count + threads() - 1) / threads(), first = static_cast<int>(threadIdx.x) * each;
  const int end = first + each < row.count ? first + each : row.count;
  uint64_t mine = 0;
  for (int i = first; i < end; ++i)
    if (key_of(row, i) >= cut) mine += chance_of(row, i);
  uint64_t sum = scan_block(mine, shared->scratch).before;
  if (sum > target || sum + mine <= target) return;
  for (int i = first; i < end; ++i) {
    if (key_of(row, i) >= cut) sum += chance_of(row, i);
    if (sum > target) {
      *token = i;
      return;
    }
  }
}

__device__ __forceinline__ uint32_t random_bits(uint64_t seed, uint64_t counter) {
  const PhiloxBlock block = {{static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32U), 0, 0}};
  return philox(block, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32U)).word[0] >> 8U;
}

struct Arguments {
  const float* logits;
  int64_t stride;
  int vocabulary;
  const float* temperatures;
  const int32_t* top_k;
  const float* top_p;
  const uint64_t* seeds;
  const uint64_t* counters;
  int32_t* tokens;
};

__global__ void __launch_bounds__(kMostThreads, 1) sample_kernel(Arguments op) {
  DRYDOCK_DYNAMIC_SHARED(bytes);
  auto* const shared = reinterpret_cast<Shared*>(bytes);
  const int64_t at = blockIdx.x;
  dependency_wait();
  Row row{{op.logits + at * op.stride, op.vocabulary}, 0, 0};
  const int likeliest = index_of(largest_key(row, shared));
  const float temperature = op.temperatures[at];
  if (temperature == 0) {
    if (threadIdx.x == 0) op.tokens[at] = likeliest;
    return;
  }
  row.largest = row.numbers[likeliest];
  row.inverse_temperature = 1.0F / temperature;
  const auto chance = [&row](int i) { return chance_of(row, i); };
  uint64_t cut = 0;
  const int top_k = op.top_k[at];
  if (top_k > 0 && top_k < op.vocabulary)
    cut = find_cut(row, 0, static_cast<uint64_t>(top_k), shared, [](int) { return uint64_t{1}; });
  uint64_t all = sum_from(row, cut, shared, chance);
  if (op.top_p[at] < 1 && all > 0) {
    const auto wanted = static_cast<uint64_t>(ceil(static_cast<double>(op.top_p[at]) * static_cast<double>(all)));
    cut = find_cut(row, cut, wanted > 0 ? wanted : 1, shared, chance);
    all = sum_from(row, cut, shared, chance);
  }
  if (all == 0) {  // nothing but NaN
    if (threadIdx.x == 0) op.tokens[at] = likeliest;
    return;
  }
  draw(row, cut, part_of(all, random_bits(op.seeds[at], op.counters[at])), shared, op.tokens + at);
}

}  // namespace

void sample(const Sample& op, Stream stream) {
  if (op.logits.rows <= 0 || op.logits.cols <= 0) return;
  if (op.logits.dtype != core::Dtype::fp32)
    throw core::Error("sample: logits are " + std::string(core::name(op.logits.dtype)) + "; fp32 is right");
  if (op.logits.cols >= int64_t{1} << kIndexBits)
    throw core::Error("sample: a vocabulary of " + std::to_string(op.logits.cols) + "; less than 1048576 is right");
  const LaunchShape shape{.grid_x = static_cast<unsigned>(op.logits.rows),
                          .threads = threads_for(op.logits.cols),
                          .shared_bytes = sizeof(Shared),
                          .programmatic = true};
  launch(sample_kernel, shape, stream,
         Arguments{static_cast<const float*>(op.logits.data), op.logits.stride, static_cast<int>(op.logits.cols),
                   op.temperatures, op.top_k, op.top_p, op.seeds, op.counters, op.tokens});
}

}  // namespace drydock::kernels::cuda
