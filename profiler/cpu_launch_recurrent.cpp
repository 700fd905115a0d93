#include "profiler/cpu_launch_recurrent.h"

#include <memory>
#include <numeric>
#include <vector>

#include "kernels/cpu.h"
#include "profiler/cpu_operands.h"

namespace drydock::profiler {
namespace {

using core::Dtype;
using core::Op;
using kernels::cpu::Threads;

// Of `batch` sequences of `each` new tokens: their states, which rotate, and per head what decays them. Random decays
// near 1 keep the states finite however often a launch runs.
struct RecurrentState {
  RecurrentState(int64_t batch, int64_t each, int64_t heads, int64_t state, int64_t row, int64_t out_row)
      : x(Dtype::bf16, batch * each, row),
        gates(Dtype::bf16, batch * each, 2 * heads),
        out(Dtype::bf16, batch * each, out_row),
        states(Dtype::fp32, batch * heads * state * 4),
        a_log(static_cast<size_t>(heads), 0.0F),
        dt_bias(static_cast<size_t>(heads), 0.0F),
        skip(static_cast<size_t>(heads), 1.0F),
        slots(static_cast<size_t>(batch)) {
    std::iota(slots.begin(), slots.end(), 0);
    for (int64_t i = 0; i <= batch; ++i) starts.push_back(static_cast<int32_t>(i * each));
  }
  kernels::RecurrentStates at(int64_t turn) const { return {reinterpret_cast<float*>(states.at(turn)), slots.data()}; }
  Owned x, gates, out;
  Rotation states;
  std::vector<float> a_log, dt_bias, skip;
  std::vector<int32_t> slots, starts;
};

}  // namespace

Launch launch_gated_delta(const Op& op, Threads& threads) {
  const auto& s = op.shape;  // batch, new_tokens, k_heads, v_heads, k_dim, v_dim
  const auto state =
      std::make_shared<RecurrentState>(s[0], s[1], s[3], s[4] * s[5], 2 * s[2] * s[4] + s[3] * s[5], s[3] * s[5]);
  return [state, &threads, s](int64_t turn) {
    kernels::GatedDelta a;
    a.qkv = state->x.memory.data();
    a.a = state->gates.memory.data();
    a.b = state->gates.memory.data() + s[3] * width(Dtype::bf16);
    a.gate_stride = 2 * s[3];
    a.a_log = state->a_log.data();
    a.dt_bias = state->dt_bias.data();
    a.states = state->at(turn);
    a.out = state->out.memory.data();
    a.starts = state->starts.data();
    a.batch = s[0];
    a.tokens = s[0] * s[1];
    a.k_heads = s[2];
    a.v_heads = s[3];
    a.k_dim = s[4];
    a.v_dim = s[5];
    kernels::cpu::gated_delta(a, threads);
  };
}

Launch launch_mamba2(const Op& op, Threads& threads) {
  const auto& s = op.shape;  // batch, new_tokens, heads, head_dim, state, groups
  const auto state =
      std::make_shared<RecurrentState>(s[0], s[1], s[2], s[3] * s[4], s[2] * s[3] + 2 * s[5] * s[4], s[2] * s[3]);
  return [state, &threads, s](int64_t turn) {
    kernels::Mamba2 a;
    a.xbc = state->x.memory.data();
    a.dt = state->gates.memory.data();
    a.dt_stride = 2 * s[2];
    a.a_log = state->a_log.data();
    a.dt_bias = state->dt_bias.data();
    a.skip = state->skip.data();
    a.states = state->at(turn);
    a.out = state->out.memory.data();
    a.starts = state->starts.data();
    a.batch = s[0];
    a.tokens = s[0] * s[1];
    a.heads = s[2];
    a.head_dim = s[3];
    a.state = s[4];
    a.groups = s[5];
    kernels::cpu::mamba2(a, threads);
  };
}

}  // namespace drydock::profiler
