#include <cmath>
#include <string>

#include "core/error.h"
#include "kernels/cuda/moe.h"
#include "kernels/cuda/simt.h"

namespace drydock::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kMostChoices = 32;

struct Best {
  float value;
  int expert;
};

// The larger, of equals the lower expert, over the warp.
__device__ __forceinline__ Best warp_best(Best best) {
#pragma unroll
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const Best other{shuffle_xor(best.value, mask), shuffle_xor(best.expert, mask)};
    if (other.value > best.value || (other.value == best.value && other.expert < best.expert)) best = other;
  }
  return best;
}

// One warp a token; lane l holds experts l, l + 32, ... kEach of them.
template <int kEach>
__global__ void __launch_bounds__(kThreads)
    route_kernel(const float* logits, int64_t stride, int tokens, int experts, int top_k, bool renormalize,
                 int32_t* out_experts, float* out_weights) {
  const int token = static_cast<int>(blockIdx.x) * (kThreads / kWarp) + warp_index(), lane = lane_index();
  if (token >= tokens) return;  // whole warps
  dependency_wait();
  float values[kEach];
  float largest = -INFINITY;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int expert = i * kWarp + lane;
    const float logit = expert < experts ? logits[token * stride + expert] : -INFINITY;
    values[i] = logit == logit ? logit : -INFINITY;  // NaN
    largest = fmaxf(largest, values[i]);
  }
  largest = warp_max(largest);
  if (largest == -INFINITY) largest = 0;
  float all = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) all += expf(values[i] - largest);
  all = warp_sum(all);
  uint32_t taken = 0;  // bit i: values[i] has been chosen
  float kept = 0, mine = 0;
  int my_expert = 0;
  for (int choice = 0; choice < top_k; ++choice) {
    Best best{-INFINITY, INT32_MAX};
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int expert = i * kWarp + lane;
      const bool free = (taken >> static_cast<unsigned>(i) & 1U) == 0 && expert < experts;
      if (free && (values[i] > best.value || best.expert == INT32_MAX)) best = {values[i], expert};
    }
    best = warp_best(best);
    if (best.expert % kWarp == lane) taken |= 1U << static_cast<unsigned>(best.expert / kWarp);
    const float weight = expf(best.value - largest) / all;
    kept += weight;
    if (lane == choice) {
      mine = weight;
      my_expert = best.expert;
    }
  }
  dependency_launch();
  if (lane >= top_k) return;
  out_experts[static_cast<int64_t>(token) * top_k + lane] = my_expert;
  out_weights[static_cast<int64_t>(token) * top_k + lane] = renormalize ? mine / kept : mine;
}

}  // namespace

void route(const Route& op, Stream stream) {
  const int64_t tokens = op.logits.rows, experts = op.logits.cols;
  if (tokens <= 0) return;
  if (op.logits.dtype != core::Dtype::fp32) throw core::Error("route: logits are fp32");
  if (experts > kMostExperts || op.top_k < 1 || op.top_k > std::min<int64_t>(experts, kMostChoices))
    throw core::Error("route: " + std::to_string(op.top_k) + " of " + std::to_string(experts) +
                      " experts; 1 to 32 of at most 1024 are right");
  const LaunchShape shape{.grid_x = static_cast<unsigned>((tokens + kThreads / kWarp - 1) / (kThreads / kWarp)),
                          .threads = kThreads,
                          .programmatic = true};
  const auto start = [&](auto kernel) {
    launch(kernel, shape, stream, static_cast<const float*>(op.logits.data), op.logits.stride, static_cast<int>(tokens),
           static_cast<int>(experts), static_cast<int>(op.top_k), op.renormalize, op.experts, op.weights);
  };
  if (experts <= 64) return start(route_kernel<2>);
  if (experts <= 256) return start(route_kernel<8>);
  start(route_kernel<32>);
}

}  // namespace drydock::kernels::cuda
