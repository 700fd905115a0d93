// Recurrent mixers on a GPU, or emulated, against the reference in double.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/cuda/recurrent.h"
#include "kernels/reference.h"
#include "tests/kernels_cuda_attention_bed.h"
#include "tests/kernels_recurrent_bed.h"

namespace drydock::tests {
namespace {

using kernels::Bf16;

const std::vector<int32_t> kStepStarts = {0, 1, 1, 21, 37}, kStepSlots = {2, 0, 4, 1};
constexpr int64_t kStepTokens = 37, kStepPlaces = 5;

// What both mixers have, on both sides.
struct RecurrentProblem {
  core::Random random;
  Both<Bf16> x, gates;
  Both<float> a_log, dt_bias, skip;
  std::vector<float> states;
  Both<int32_t> starts{kStepStarts}, slots{kStepSlots};

  RecurrentProblem(uint64_t seed, int64_t width, int64_t heads, int64_t state)
      : random(seed),
        x(random_bf16(random, kStepTokens * width)),
        gates(random_bf16(random, kStepTokens * 2 * heads)),
        a_log(uniform(random, heads, -1, 1)),
        dt_bias(uniform(random, heads, -1, 1)),
        skip(uniform(random, heads, -1, 1)),
        states(uniform(random, kStepPlaces * heads * state, -0.1, 0.1)) {}

  // `run(out, states)` launches; bf16 of the result and fp32 of the states against the reference's.
  template <typename Run>
  void check(const kernels::reference::Recurred& want, double tolerance, Run&& run) const {
    OnDevice<Bf16> out(poisoned(static_cast<int64_t>(want.out.size())));
    OnDevice<float> device_states(states);
    run(out.data(), device_states.data());
    const std::vector<Bf16> got = out.read();
    for (size_t i = 0; i < want.out.size(); ++i)
      REQUIRE(std::abs(kernels::to_float(got[i]) - want.out[i]) <= std::abs(want.out[i]) / 256 + tolerance);
    const std::vector<float> after = device_states.read();
    const size_t each = states.size() / kStepPlaces;
    for (size_t place = 0; place < static_cast<size_t>(kStepPlaces); ++place) {
      const auto sequence = static_cast<size_t>(
          std::find(kStepSlots.begin(), kStepSlots.end(), static_cast<int32_t>(place)) - kStepSlots.begin());
      for (size_t i = 0; i < each; ++i) {
        const bool touched = sequence < kStepSlots.size();
        const double right = touched ? want.states[sequence * each + i] : double{states[place * each + i]};
        REQUIRE(std::abs(double{after[place * each + i]} - right) <= (touched ? tolerance : 0));
      }
    }
  }
};

kernels::GatedDelta delta_op(RecurrentProblem& p, bool on_device, int64_t k_heads, int64_t group, int64_t k_dim,
                             int64_t v_dim) {
  const int64_t heads = k_heads * group;
  kernels::GatedDelta op;
  op.qkv = p.x.at(on_device), op.a = p.gates.at(on_device), op.b = p.gates.at(on_device) + heads;
  op.gate_stride = 2 * heads;
  op.a_log = p.a_log.at(on_device), op.dt_bias = p.dt_bias.at(on_device);
  op.states = {p.states.data(), p.slots.at(on_device)};
  op.starts = p.starts.at(on_device), op.batch = 4, op.tokens = kStepTokens;
  op.k_heads = k_heads, op.v_heads = heads, op.k_dim = k_dim, op.v_dim = v_dim;
  return op;
}

kernels::Mamba2 mamba_op(RecurrentProblem& p, bool on_device, int64_t groups, int64_t each, int64_t head_dim,
                         int64_t state) {
  kernels::Mamba2 op;
  op.xbc = p.x.at(on_device), op.dt = p.gates.at(on_device), op.dt_stride = 2 * groups * each;
  op.a_log = p.a_log.at(on_device), op.dt_bias = p.dt_bias.at(on_device), op.skip = p.skip.at(on_device);
  op.states = {p.states.data(), p.slots.at(on_device)};
  op.starts = p.starts.at(on_device), op.batch = 4, op.tokens = kStepTokens;
  op.heads = groups * each, op.head_dim = head_dim, op.state = state, op.groups = groups;
  return op;
}

TEST_CASE("the gated delta rule on a GPU agrees with the reference") {
  uint64_t seed = 40;
  in_every_order([&] {
    for (const auto& [k_dim, v_dim, columns] :
         {std::array<int64_t, 3>{128, 128, 2}, {64, 64, 2}, {128, 32, 1}, {64, 96, 1}, {128, 64, 0}}) {
      CAPTURE(k_dim);
      CAPTURE(v_dim);
      RecurrentProblem p(++seed, 2 * k_dim + 2 * v_dim, 2, k_dim * v_dim);
      const auto want = kernels::reference::gated_delta(delta_op(p, false, 1, 2, k_dim, v_dim));
      p.check(want, delta_tolerance(20, k_dim), [&](Bf16* out, float* states) {
        kernels::GatedDelta op = delta_op(p, true, 1, 2, k_dim, v_dim);
        op.out = out, op.states.data = states;
        kernels::cuda::gated_delta(op, nullptr, static_cast<int>(columns));
      });
    }
  });
}

TEST_CASE("Mamba-2 on a GPU agrees with the reference") {
  uint64_t seed = 50;
  in_every_order([&] {
    for (const auto& [head_dim, state, columns] : {std::array<int64_t, 3>{64, 128, 1}, {32, 64, 0}, {128, 128, 2}}) {
      CAPTURE(head_dim);
      RecurrentProblem p(++seed, 2 * head_dim + 2 * state, 2, state * head_dim);
      const auto want = kernels::reference::mamba2(mamba_op(p, false, 1, 2, head_dim, state));
      p.check(want, mamba_tolerance(state), [&](Bf16* out, float* states) {
        kernels::Mamba2 op = mamba_op(p, true, 1, 2, head_dim, state);
        op.out = out, op.states.data = states;
        kernels::cuda::mamba2(op, nullptr, static_cast<int>(columns));
      });
    }
  });
}

TEST_CASE("lanes hold 2 columns where heads fill the GPU, and what there is no kernel for is refused in one line") {
  CHECK(kernels::cuda::recurrent_columns(32, 128, 132) == 1);
  CHECK(kernels::cuda::recurrent_columns(264, 128, 132) == 2);
  CHECK(kernels::cuda::recurrent_columns(4096, 96, 132) == 1);
  RecurrentProblem p(1, 2 * 128 + 2 * 128, 2, 128 * 128);
  kernels::GatedDelta op = delta_op(p, true, 1, 2, 96, 128);
  CHECK_THROWS_WITH_AS(kernels::cuda::gated_delta(op, nullptr), "gated_delta: keys of 96 numbers; 64 or 128 are right",
                       core::Error);
  op.k_dim = 128, op.v_dim = 48;
  CHECK_THROWS_WITH_AS(kernels::cuda::gated_delta(op, nullptr),
                       "gated_delta: values of 48 numbers; a multiple of 32 is right", core::Error);
  op.dtype = core::Dtype::fp32;
  CHECK_THROWS_WITH_AS(kernels::cuda::gated_delta(op, nullptr), "gated_delta: numbers are fp32; bf16 is right on a GPU",
                       core::Error);
  kernels::Mamba2 mamba = mamba_op(p, true, 3, 1, 64, 128);
  mamba.groups = 2;
  CHECK_THROWS_WITH_AS(kernels::cuda::mamba2(mamba, nullptr), "mamba2: 3 heads in 2 groups; a multiple is right",
                       core::Error);
  mamba.batch = 0, mamba.groups = 3;
  CHECK_NOTHROW(kernels::cuda::mamba2(mamba, nullptr));
}

}  // namespace
}  // namespace drydock::tests
