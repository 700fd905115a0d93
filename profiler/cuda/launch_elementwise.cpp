#include <algorithm>

#include "kernels/cuda/moe.h"
#include "kernels/cuda/sampling.h"
#include "kernels/cuda/small_ops.h"
#include "profiler/cuda/launch.h"
#include "profiler/cuda/operands.h"

namespace drydock::profiler::cuda {
namespace {

using core::Dtype;
using core::Op;

// One that does not rotate.
Candidate still(const char* kernel, Bench& bench, std::shared_ptr<Memory> memory, Launch launch) {
  return {kernel, {bench.lane()}, std::move(launch), 1, std::move(memory)};
}

Candidate norm(int64_t tokens, int64_t hidden, Bench& bench) {
  const auto memory = bench.memory();
  kernels::AddRmsNorm n;
  n.x = activations(*memory, Dtype::bf16, tokens, hidden);
  n.residual = activations(*memory, Dtype::bf16, tokens, hidden);
  n.weight = memory->random(Dtype::bf16, hidden * 2);
  n.out = activations(*memory, Dtype::bf16, tokens, hidden);
  return still("add_rms_norm", bench, memory,
               [n, stream = bench.lane().stream](int64_t) { kernels::cuda::add_rms_norm(n, stream); });
}

Candidate silu(int64_t tokens, int64_t wide, Bench& bench) {
  const auto memory = bench.memory();
  const kernels::SiluMul s{activations(*memory, Dtype::bf16, tokens, 2 * wide),
                           activations(*memory, Dtype::bf16, tokens, wide), nullptr};
  return still("silu_mul", bench, memory,
               [s, stream = bench.lane().stream](int64_t) { kernels::cuda::silu_mul(s, stream); });
}

Candidate sampling(int64_t rows, int64_t vocabulary, Bench& bench) {
  const auto memory = bench.memory();
  const auto n = static_cast<size_t>(rows);
  kernels::Sample s;
  s.logits = activations(*memory, Dtype::fp32, rows, vocabulary);
  s.temperatures = memory->put(std::vector<float>(n, 1.0F));
  s.top_k = memory->put(std::vector<int32_t>(n, 0));
  s.top_p = memory->put(std::vector<float>(n, 1.0F));
  s.seeds = memory->put(std::vector<uint64_t>(n, 1));
  std::vector<uint64_t> counters(n);
  for (size_t i = 0; i < n; ++i) counters[i] = i;
  s.counters = memory->put(counters);
  s.tokens = static_cast<int32_t*>(memory->zeros(rows * 4));
  return still("sample", bench, memory,
               [s, stream = bench.lane().stream](int64_t) { kernels::cuda::sample(s, stream); });
}

Candidate routing(int64_t tokens, int64_t experts, int64_t top_k, Bench& bench) {
  const auto memory = bench.memory();
  kernels::Route r;
  r.logits = activations(*memory, Dtype::fp32, tokens, experts);
  r.experts = static_cast<int32_t*>(memory->zeros(tokens * top_k * 4));
  r.weights = static_cast<float*>(memory->zeros(tokens * top_k * 4));
  r.top_k = top_k;
  return still("route", bench, memory, [r, stream = bench.lane().stream](int64_t) { kernels::cuda::route(r, stream); });
}

}  // namespace

// What models/lowering.cpp means by so many bytes, as profiler/cpu_launch.h lists.
Candidate elementwise_candidate(const Op& op, Bench& bench) {
  constexpr int64_t kMostTopK = 32;  // kernels/cuda/moe.h
  const int64_t tokens = op.shape[0], read = op.shape[1], written = op.shape[2];
  if (written == 4) return sampling(tokens, std::max<int64_t>(read / 8, 1), bench);
  if (written >= read) return norm(tokens, std::max<int64_t>(written / 4, 1), bench);
  const int64_t experts = read / 4, top_k = written / 8;
  if (2 * written < read && top_k >= 1 && top_k <= std::min(experts, kMostTopK) &&
      experts <= kernels::cuda::kMostExperts)
    return routing(tokens, experts, top_k, bench);
  return silu(tokens, std::max<int64_t>(written / 2, 1), bench);
}

}  // namespace drydock::profiler::cuda
