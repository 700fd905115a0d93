#include "kernels/recurrent.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu.h"
#include "kernels/isa.h"
#include "kernels/operands.h"
#include "kernels/scratch.h"

namespace drydock::kernels::cpu {
namespace {

constexpr int64_t kTokensAtOnce = 64;  // whose operands stand in fp32 while a head's state passes over them
constexpr float kSmallestLength = 1e-6F;

enum RecurrentScratch {
  kRecurrentKeys = 40,
  kRecurrentQueries,
  kRecurrentValues,
  kRecurrentOut,
  kRecurrentGates,
  kRecurrentBlock
};

float softplus(float x) { return x > 20 ? x : std::log1p(std::exp(x)); }
float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

float number(const void* data, core::Dtype dtype, int64_t i) {
  float out = 0;
  isa().widen(at(data, dtype, i), dtype, 1, 1, &out);
  return out;
}

// Of a few tokens of one head, in fp32.
struct HeadTokens {
  int64_t k_dim, v_dim;
  float *k, *q, *v, *out, *decay, *gain;

  HeadTokens(int64_t key_dim, int64_t value_dim)
      : k_dim(key_dim),
        v_dim(value_dim),
        k(scratch<kRecurrentKeys>(kTokensAtOnce * key_dim)),
        q(scratch<kRecurrentQueries>(kTokensAtOnce * key_dim)),
        v(scratch<kRecurrentValues>(kTokensAtOnce * value_dim)),
        out(scratch<kRecurrentOut>(kTokensAtOnce * value_dim)),
        decay(scratch<kRecurrentGates>(2 * kTokensAtOnce)),
        gain(decay + kTokensAtOnce) {}

  void recur(int64_t tokens, bool delta, float* state) const {
    float* block = scratch<kRecurrentBlock>(k_dim * 2 * kPadding);
    isa().recur({k, q, v, decay, gain, state, block, out, tokens, k_dim, v_dim, v_dim, v_dim, delta});
  }
};

// Tokens of all (sequence, head) pairs, kTokensAtOnce at a time: body(head, first token, count, sequence).
template <typename Body>
void each_head(int64_t batch, int64_t heads, const int32_t* starts, Threads& threads, Body&& body) {
  threads.parallel_for(batch * heads, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t sequence = task / heads;
      for (int64_t t = starts[sequence]; t < starts[sequence + 1]; t += kTokensAtOnce)
        body(task % heads, t, std::min<int64_t>(kTokensAtOnce, starts[sequence + 1] - t), sequence);
    }
  });
}

void normalize(float* x, int64_t count, float scale) {
  const float factor = scale / std::sqrt(isa().sum_squares(x, count) + kSmallestLength);
  for (int64_t i = 0; i < count; ++i) x[i] *= factor;
}

void delta_tokens(const GatedDelta& op, int64_t head, int64_t first, int64_t count, int64_t sequence) {
  const HeadTokens h(op.k_dim, op.v_dim);
  const int64_t width = 2 * op.k_heads * op.k_dim + op.v_heads * op.v_dim;
  const int64_t key_head = head / (op.v_heads / op.k_heads);
  const float rate = std::exp(op.a_log[head]);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = (first + i) * width, gate = (first + i) * op.gate_stride + head;
    isa().widen(at(op.qkv, op.dtype, row + key_head * op.k_dim), op.dtype, op.k_dim, 1, h.q + i * op.k_dim);
    isa().widen(at(op.qkv, op.dtype, row + (op.k_heads + key_head) * op.k_dim), op.dtype, op.k_dim, 1,
                h.k + i * op.k_dim);
    isa().widen(at(op.qkv, op.dtype, row + 2 * op.k_heads * op.k_dim + head * op.v_dim), op.dtype, op.v_dim, 1,
                h.v + i * op.v_dim);
    normalize(h.q + i * op.k_dim, op.k_dim, 1 / std::sqrt(static_cast<float>(op.k_dim)));
    normalize(h.k + i * op.k_dim, op.k_dim, 1);
    h.decay[i] = std::exp(-rate * softplus(number(op.a, op.dtype, gate) + op.dt_bias[head]));
    h.gain[i] = sigmoid(number(op.b, op.dtype, gate));
  }
  h.recur(count, true, op.states.data + (op.states.slots[sequence] * op.v_heads + head) * op.k_dim * op.v_dim);
  for (int64_t i = 0; i < count; ++i)
    isa().narrow(h.out + i * op.v_dim, op.v_dim, 1, op.dtype,
                 at(op.out, op.dtype, ((first + i) * op.v_heads + head) * op.v_dim));
}

void mamba_tokens(const Mamba2& op, int64_t head, int64_t first, int64_t count, int64_t sequence) {
  const HeadTokens h(op.state, op.head_dim);
  const int64_t inner = op.heads * op.head_dim, width = inner + 2 * op.groups * op.state;
  const int64_t group = head / (op.heads / op.groups);
  const float rate = std::exp(op.a_log[head]);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = (first + i) * width;
    isa().widen(at(op.xbc, op.dtype, row + head * op.head_dim), op.dtype, op.head_dim, 1, h.v + i * op.head_dim);
    isa().widen(at(op.xbc, op.dtype, row + inner + group * op.state), op.dtype, op.state, 1, h.k + i * op.state);
    isa().widen(at(op.xbc, op.dtype, row + inner + (op.groups + group) * op.state), op.dtype, op.state, 1,
                h.q + i * op.state);
    const float delta = softplus(number(op.dt, op.dtype, (first + i) * op.dt_stride + head) + op.dt_bias[head]);
    h.decay[i] = std::exp(-rate * delta);
    h.gain[i] = delta;
  }
  h.recur(count, false, op.states.data + (op.states.slots[sequence] * op.heads + head) * op.state * op.head_dim);
  for (int64_t i = 0; i < count; ++i) {
    isa().add_scaled(h.v + i * op.head_dim, op.skip[head], op.head_dim, h.out + i * op.head_dim);
    isa().narrow(h.out + i * op.head_dim, op.head_dim, 1, op.dtype,
                 at(op.out, op.dtype, ((first + i) * op.heads + head) * op.head_dim));
  }
}

void check_numbers(core::Dtype dtype, const char* kernel) {
  require(dtype == core::Dtype::fp32 || dtype == core::Dtype::bf16, kernel, "numbers have to be fp32 or bf16");
}

}  // namespace

void gated_delta(const GatedDelta& op, Threads& threads) {
  check_numbers(op.dtype, "gated_delta");
  require(op.k_heads > 0 && op.v_heads > 0 && op.v_heads % op.k_heads == 0, "gated_delta",
          "v_heads has to be a multiple of k_heads");
  require(op.k_dim > 0 && op.v_dim > 0 && op.gate_stride >= op.v_heads, "gated_delta", "an extent is too small");
  each_head(op.batch, op.v_heads, op.starts, threads,
            [&](int64_t head, int64_t first, int64_t count, int64_t sequence) {
              delta_tokens(op, head, first, count, sequence);
            });
}

void mamba2(const Mamba2& op, Threads& threads) {
  check_numbers(op.dtype, "mamba2");
  require(op.heads > 0 && op.groups > 0 && op.heads % op.groups == 0, "mamba2", "heads has to be a multiple of groups");
  require(op.head_dim > 0 && op.state > 0 && op.dt_stride >= op.heads, "mamba2", "an extent is too small");
  each_head(op.batch, op.heads, op.starts, threads, [&](int64_t head, int64_t first, int64_t count, int64_t sequence) {
    mamba_tokens(op, head, first, count, sequence);
  });
}

}  // namespace drydock::kernels::cpu
