#include <algorithm>

#include "core/error.h"
#include "kernels/cuda/grouped_products.h"
#include "kernels/cuda/moe.h"
#include "kernels/cuda/small_ops.h"
#include "profiler/cuda/experts.h"
#include "profiler/cuda/launch.h"
#include "profiler/cuda/operands.h"

namespace drydock::profiler::cuda {
namespace {

using core::Dtype;
using core::Op;
using kernels::Matrix;
using kernels::Scaling;

// Pairs that fall on the first `local` experts, which are this rank's.
int64_t local_pairs(const std::vector<int32_t>& chosen, int64_t local) {
  return std::count_if(chosen.begin(), chosen.end(), [&](int32_t expert) { return expert < local; });
}

// SiLU leaves its quantized rows scaled one by one, or by blocks.
Scaling after_silu(Dtype dtype) {
  if (dtype == Dtype::fp8) return Scaling::row;
  return scaling_of(dtype);
}

struct MoeState {
  MoeState(const Op& op, Bench& bench)
      : memory(bench.memory()),
        stream(bench.lane().stream),
        tokens(op.shape[0]),
        top_k(op.shape[4]),
        local(op.shape[3] / op.shape[5]),
        chosen(random_experts(tokens, top_k, op.shape[3])),
        pairs(local_pairs(chosen, local)) {
    if (pairs > most_local_pairs(tokens, top_k, op.shape[5]))
      throw core::Error("moe: the draw of experts is outside of what was planned for");
    const int64_t hidden = op.shape[1], inter = op.shape[2];
    const Scaling before = scaling_of(op.dtype), between = after_silu(op.dtype);
    in = activations(*memory, op.dtype, tokens, hidden);
    // Scales are not gathered: 1 of 33 bytes of a row by blocks.
    gathered = activations(*memory, op.dtype, pairs, hidden, before);
    wide = activations(*memory, Dtype::bf16, pairs, 2 * inter);
    act = activations(*memory, op.dtype, pairs, inter, between);
    down = activations(*memory, Dtype::bf16, pairs, hidden);
    out = activations(*memory, Dtype::bf16, tokens, hidden);
    up_weights = weights(*memory, op.dtype, local * 2 * inter, hidden, before, local);
    down_weights = weights(*memory, op.dtype, local * hidden, inter, between, local);
    index();
  }

  void index() {
    experts = memory->put(chosen);
    share = memory->put(std::vector<float>(chosen.size(), 1.0F / static_cast<float>(top_k)));
    starts = static_cast<int32_t*>(memory->zeros((local + 1) * 4));
    sources = static_cast<int32_t*>(memory->zeros(tokens * top_k * 4));
    rows = static_cast<int32_t*>(memory->zeros(tokens * top_k * 4));
    scratch = workspace(*memory, kernels::cuda::permute_workspace_bytes(permutation()));
  }

  kernels::Permute permutation() const { return {experts, tokens, top_k, 0, local, starts, sources, rows}; }

  kernels::GroupedGemm up(int64_t turn) const { return {gathered, up_weights.at(turn), wide, starts, local}; }
  kernels::GroupedGemm back(int64_t turn) const { return {act, down_weights.at(turn), down, starts, local}; }

  void run(int64_t turn, kernels::cuda::GroupedProducts& products, const std::string& way) const {
    namespace gpu = kernels::cuda;
    gpu::permute(permutation(), scratch, stream);
    Matrix unscaled = gathered;
    unscaled.scales = nullptr;
    unscaled.scaling = Scaling::none;
    gpu::gather({in, unscaled, sources, starts + local, top_k}, stream);
    products.run(up(turn), stream, way);
    const bool quantized = act.scaling != Scaling::none;
    gpu::silu_mul({wide, act, quantized ? const_cast<float*>(act.scales) : nullptr}, stream);
    products.run(back(turn), stream, way);
    gpu::combine({down, out, rows, share, top_k}, stream);
  }

  std::shared_ptr<Memory> memory;
  kernels::cuda::Stream stream;
  int64_t tokens, top_k, local;
  std::vector<int32_t> chosen;
  int64_t pairs;
  Matrix in, gathered, wide, act, down, out;
  Weights up_weights, down_weights;
  const int32_t* experts = nullptr;
  const float* share = nullptr;
  int32_t *starts = nullptr, *sources = nullptr, *rows = nullptr;
  kernels::cuda::Workspace scratch;
};

}  // namespace

std::vector<Candidate> moe_candidates(const Op& op, Bench& bench) {
  const auto state = std::make_shared<MoeState>(op, bench);
  const int64_t copies = std::min(state->up_weights.copies.copies, state->down_weights.copies.copies);
  std::vector<Candidate> out;
  for (const std::string& way : bench.grouped().ways(state->up(0))) {
    out.push_back({"permute+gather+" + way + "+silu_mul+" + way + "+combine", {bench.lane()}, {}, copies, state});
    out.back().launch = [state, &bench, way](int64_t turn) { state->run(turn, bench.grouped(), way); };
    out.back().needs_host = kernels::cuda::GroupedProducts::needs_host(way);
  }
  return out;
}

}  // namespace drydock::profiler::cuda
