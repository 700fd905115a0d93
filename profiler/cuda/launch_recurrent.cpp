#include <numeric>

#include "kernels/cuda/recurrent.h"
#include "profiler/cuda/launch.h"
#include "profiler/cuda/operands.h"

namespace drydock::profiler::cuda {
namespace {

using core::Dtype;
using core::Op;

// As RecurrentState of profiler/cpu_launch_recurrent.cpp.
struct RecurrentState {
  RecurrentState(Bench& bench, int64_t batch, int64_t each, int64_t heads, int64_t state, int64_t row, int64_t out_row)
      : memory(bench.memory()),
        x(memory->random(Dtype::bf16, batch * each * row * 2)),
        gates(memory->random(Dtype::bf16, batch * each * 2 * heads * 2)),
        out(memory->zeros(batch * each * out_row * 2)),
        states(memory->rotation(Dtype::fp32, batch * heads * state * 4)),
        zeros(memory->put(std::vector<float>(static_cast<size_t>(heads), 0.0F))),
        ones(memory->put(std::vector<float>(static_cast<size_t>(heads), 1.0F))) {
    std::vector<int32_t> numbers(static_cast<size_t>(batch)), first;
    std::iota(numbers.begin(), numbers.end(), 0);
    for (int64_t i = 0; i <= batch; ++i) first.push_back(static_cast<int32_t>(i * each));
    slots = memory->put(numbers);
    starts = memory->put(first);
  }
  kernels::RecurrentStates at(int64_t turn) const { return {reinterpret_cast<float*>(states.at(turn)), slots}; }

  std::shared_ptr<Memory> memory;
  void *x, *gates, *out;
  Rotation states;
  const float *zeros, *ones;
  const int32_t *slots = nullptr, *starts = nullptr;
};

}  // namespace

Candidate gated_delta_candidate(const Op& op, Bench& bench) {
  const auto& s = op.shape;  // batch, new_tokens, k_heads, v_heads, k_dim, v_dim
  const auto state = std::make_shared<RecurrentState>(bench, s[0], s[1], s[3], s[4] * s[5],
                                                      2 * s[2] * s[4] + s[3] * s[5], s[3] * s[5]);
  kernels::GatedDelta a;
  a.qkv = state->x;
  a.a = state->gates;
  a.b = static_cast<char*>(state->gates) + s[3] * 2;
  a.gate_stride = 2 * s[3];
  a.a_log = a.dt_bias = state->zeros;
  a.out = state->out;
  a.starts = state->starts;
  a.batch = s[0];
  a.tokens = s[0] * s[1];
  a.k_heads = s[2];
  a.v_heads = s[3];
  a.k_dim = s[4];
  a.v_dim = s[5];
  Candidate one{"gated_delta", {bench.lane()}, {}, state->states.copies, state};
  one.launch = [state, a, stream = bench.lane().stream](int64_t turn) {
    kernels::GatedDelta now = a;
    now.states = state->at(turn);
    kernels::cuda::gated_delta(now, stream);
  };
  return one;
}

Candidate mamba2_candidate(const Op& op, Bench& bench) {
  const auto& s = op.shape;  // batch, new_tokens, heads, head_dim, state, groups
  const auto state = std::make_shared<RecurrentState>(bench, s[0], s[1], s[2], s[3] * s[4],
                                                      s[2] * s[3] + 2 * s[5] * s[4], s[2] * s[3]);
  kernels::Mamba2 a;
  a.xbc = state->x;
  a.dt = state->gates;
  a.dt_stride = 2 * s[2];
  a.a_log = a.dt_bias = state->zeros;
  a.skip = state->ones;
  a.out = state->out;
  a.starts = state->starts;
  a.batch = s[0];
  a.tokens = s[0] * s[1];
  a.heads = s[2];
  a.head_dim = s[3];
  a.state = s[4];
  a.groups = s[5];
  Candidate one{"mamba2", {bench.lane()}, {}, state->states.copies, state};
  one.launch = [state, a, stream = bench.lane().stream](int64_t turn) {
    kernels::Mamba2 now = a;
    now.states = state->at(turn);
    kernels::cuda::mamba2(now, stream);
  };
  return one;
}

}  // namespace drydock::profiler::cuda
