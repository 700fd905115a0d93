#include <doctest/doctest.h>

#include <algorithm>

#include "core/error.h"
#include "kernels/recurrent.h"
#include "kernels/work.h"
#include "tests/kernels_bed.h"
#include "tests/kernels_recurrent_bed.h"

using namespace drydock;
using namespace drydock::kernels;
using namespace drydock::tests;

namespace {

// Sequences of these tokens, each with its state at another place, between states of others.
const std::vector<int32_t> kRecurrentStarts = {0, 1, 1, 71, 73};
const std::vector<int32_t> kRecurrentSlots = {3, 0, 5, 1};
constexpr int64_t kRecurrentTokens = 73, kRecurrentPlaces = 6;

struct DeltaStep {
  Numbers qkv, gates, out;
  std::vector<float> a_log, dt_bias, states;
  GatedDelta op;

  DeltaStep(core::Random& random, Dtype dtype, int64_t k_heads, int64_t group, int64_t k_dim, int64_t v_dim) {
    const int64_t heads = k_heads * group;
    qkv = random_numbers(random, dtype, kRecurrentTokens * (2 * k_heads * k_dim + heads * v_dim));
    gates = random_numbers(random, dtype, kRecurrentTokens * 2 * heads);
    out = Numbers(dtype, kRecurrentTokens * heads * v_dim);
    a_log = uniform(random, heads, -1, 1), dt_bias = uniform(random, heads, -1, 1);
    states = uniform(random, kRecurrentPlaces * heads * k_dim * v_dim, -0.1, 0.1);
    op.qkv = qkv.data(), op.dtype = dtype, op.out = out.data();
    op.a = gates.data(), op.b = gates.bytes.data() + heads * size_of(dtype), op.gate_stride = 2 * heads;
    op.a_log = a_log.data(), op.dt_bias = dt_bias.data();
    op.states = {states.data(), kRecurrentSlots.data()};
    op.starts = kRecurrentStarts.data(), op.batch = 4, op.tokens = kRecurrentTokens;
    op.k_heads = k_heads, op.v_heads = heads, op.k_dim = k_dim, op.v_dim = v_dim;
  }
};

struct MambaStep {
  Numbers xbc, dt, out;
  std::vector<float> a_log, dt_bias, skip, states;
  Mamba2 op;

  MambaStep(core::Random& random, Dtype dtype, int64_t groups, int64_t each, int64_t head_dim, int64_t state) {
    const int64_t heads = groups * each;
    xbc = random_numbers(random, dtype, kRecurrentTokens * (heads * head_dim + 2 * groups * state));
    dt = random_numbers(random, dtype, kRecurrentTokens * (heads + 3));
    out = Numbers(dtype, kRecurrentTokens * heads * head_dim);
    a_log = uniform(random, heads, -1, 1), dt_bias = uniform(random, heads, -1, 1);
    skip = uniform(random, heads, -1, 1);
    states = uniform(random, kRecurrentPlaces * heads * state * head_dim, -1, 1);
    op.xbc = xbc.data(), op.dtype = dtype, op.dt = dt.data(), op.dt_stride = heads + 3, op.out = out.data();
    op.a_log = a_log.data(), op.dt_bias = dt_bias.data(), op.skip = skip.data();
    op.states = {states.data(), kRecurrentSlots.data()};
    op.starts = kRecurrentStarts.data(), op.batch = 4, op.tokens = kRecurrentTokens;
    op.heads = heads, op.head_dim = head_dim, op.state = state, op.groups = groups;
  }
};

// States of the step's sequences are what the reference says, all others what they were.
std::string states_mismatch(const std::vector<float>& got, const std::vector<float>& before,
                            const std::vector<double>& want, double tolerance) {
  const size_t each = got.size() / kRecurrentPlaces;
  for (size_t slot = 0; slot < static_cast<size_t>(kRecurrentPlaces); ++slot) {
    const auto place = std::find(kRecurrentSlots.begin(), kRecurrentSlots.end(), static_cast<int32_t>(slot));
    for (size_t i = 0; i < each; ++i) {
      const size_t at = slot * each + i;
      const auto sequence = static_cast<size_t>(place - kRecurrentSlots.begin());
      const bool touched = place != kRecurrentSlots.end();
      const double right = touched ? want[sequence * each + i] : double{before[at]};
      if (!(std::abs(double{got[at]} - right) <= (touched ? tolerance : 0)))
        return "state " + std::to_string(slot) + ", number " + std::to_string(i) + ": " + std::to_string(got[at]) +
               ", not " + std::to_string(right);
    }
  }
  return "";
}

}  // namespace

TEST_CASE("the gated delta rule agrees with the reference, whatever the threads") {
  core::Random random(31);
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    for (const Dtype dtype : {Dtype::fp32, Dtype::bf16})
      for (const auto& [k_heads, group, k_dim, v_dim] :
           {std::array<int64_t, 4>{2, 2, 128, 128}, {1, 3, 64, 48}, {2, 1, 9, 41}}) {
        CAPTURE(v_dim);
        DeltaStep step(random, dtype, k_heads, group, k_dim, v_dim);
        const auto want = reference::gated_delta(step.op);
        const std::vector<float> before = step.states;
        std::vector<unsigned char> first;
        for (const int count : {1, 3}) {
          step.states = before;
          step.op.states.data = step.states.data();
          cpu::Threads threads(count);
          cpu::gated_delta(step.op, threads);
          if (first.empty()) first = step.out.bytes;
          REQUIRE(step.out.bytes == first);
        }
        const double tolerance = delta_tolerance(70, k_dim);
        REQUIRE(mismatch(step.out, want.out, v_dim, tolerance, half_step(dtype)) == "");
        REQUIRE(states_mismatch(step.states, before, want.states, tolerance) == "");
      }
  });
}

TEST_CASE("Mamba-2 agrees with the reference, whatever the threads") {
  core::Random random(32);
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    for (const Dtype dtype : {Dtype::fp32, Dtype::bf16})
      for (const auto& [groups, each, head_dim, state] :
           {std::array<int64_t, 4>{2, 2, 64, 128}, {1, 3, 48, 16}, {2, 1, 5, 9}}) {
        CAPTURE(head_dim);
        MambaStep step(random, dtype, groups, each, head_dim, state);
        const auto want = reference::mamba2(step.op);
        const std::vector<float> before = step.states;
        std::vector<unsigned char> first;
        for (const int count : {1, 3}) {
          step.states = before;
          step.op.states.data = step.states.data();
          cpu::Threads threads(count);
          cpu::mamba2(step.op, threads);
          if (first.empty()) first = step.out.bytes;
          REQUIRE(step.out.bytes == first);
        }
        REQUIRE(mismatch(step.out, want.out, head_dim, mamba_tolerance(state), half_step(dtype)) == "");
        REQUIRE(states_mismatch(step.states, before, want.states, mamba_tolerance(state)) == "");
      }
  });
}

TEST_CASE("recurrent mixers: a prompt in pieces is the prompt, work by hand, refusals") {
  core::Random random(33);
  cpu::Threads threads(2);
  DeltaStep step(random, Dtype::fp32, 1, 2, 16, 16);
  const std::vector<int32_t> whole = {0, 73}, first = {0, 40}, rest = {40, 73}, slot = {2};
  const std::vector<float> before = step.states;
  step.op.batch = 1, step.op.states.slots = slot.data(), step.op.starts = whole.data();
  cpu::gated_delta(step.op, threads);
  const std::vector<unsigned char> at_once = step.out.bytes;
  const std::vector<float> after = step.states;
  std::copy(before.begin(), before.end(), step.states.begin());
  step.out = Numbers(Dtype::fp32, step.out.count());
  step.op.out = step.out.data();
  for (const auto* piece : {&first, &rest}) {
    step.op.starts = piece->data();
    cpu::gated_delta(step.op, threads);
  }
  CHECK(step.out.bytes == at_once);
  CHECK(step.states == after);

  // 2 heads with 16 x 16 states, 73 tokens: three products a token; the states read and written in fp32, q and k of one
  // head, v and the result of two.
  step.op.tokens = 73;
  CHECK(core::key(op_of(step.op)) == "gated_delta/fp32/batch=1,new_tokens=73,k_heads=1,v_heads=2,k_dim=16,v_dim=16");
  CHECK(core::flops(op_of(step.op)) == 73.0 * 2 * 16 * 16 * 6);
  CHECK(core::bytes(op_of(step.op)) == 2.0 * 16 * 16 * 8 + 73.0 * 2 * (2 * 16 + 2 * 32));
  MambaStep mamba(random, Dtype::bf16, 2, 2, 16, 32);
  mamba.op.tokens = 72;
  CHECK(core::key(op_of(mamba.op)) == "mamba2/bf16/batch=4,new_tokens=18,heads=4,head_dim=16,state=32,groups=2");
  CHECK(core::flops(op_of(mamba.op)) == 72.0 * 4 * 16 * 32 * 6);

  step.op.k_heads = 3;
  CHECK_THROWS_WITH_AS(cpu::gated_delta(step.op, threads), "gated_delta: v_heads has to be a multiple of k_heads",
                       core::Error);
  mamba.op.dt_stride = 3;
  CHECK_THROWS_WITH_AS(cpu::mamba2(mamba.op, threads), "mamba2: an extent is too small", core::Error);
}
