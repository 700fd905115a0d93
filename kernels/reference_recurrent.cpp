#include <cmath>

#include "kernels/reference.h"
#include "kernels/reference_rows.h"

namespace drydock::kernels::reference {
namespace {

double softplus(double x) { return std::log1p(std::exp(-std::abs(x))) + (x > 0 ? x : 0); }

std::vector<double> unit(std::vector<double> x) {
  double squares = 0;
  for (const double e : x) squares += e * e;
  for (double& e : x) e /= std::sqrt(squares + 1e-6);
  return x;
}

// One head's state over one token: S = decay S + k d^T, d = gain (v - [decay S^T k]); appends S^T q.
void recur(std::vector<double>& state, const std::vector<double>& k, const std::vector<double>& q,
           const std::vector<double>& v, double decay, double gain, bool delta, std::vector<double>& out) {
  for (size_t j = 0; j < v.size(); ++j) {
    double held = 0, sum = 0;
    for (size_t i = 0; i < k.size(); ++i) held += delta ? decay * state[i * v.size() + j] * k[i] : 0;
    for (size_t i = 0; i < k.size(); ++i) {
      double& s = state[i * v.size() + j];
      s = decay * s + k[i] * gain * (v[j] - held);
      sum += s * q[i];
    }
    out.push_back(sum);
  }
}

// Of one sequence and head, before the step.
std::vector<double> state_of(const RecurrentStates& states, int64_t sequence, int64_t heads, int64_t head,
                             int64_t count) {
  return elements(states.data, core::Dtype::fp32, (states.slots[sequence] * heads + head) * count, count);
}

// Results come sequence by sequence and head by head; the contract has them token by token.
std::vector<double> by_token(const std::vector<double>& by_head, const int32_t* starts, int64_t batch, int64_t heads,
                             int64_t dim) {
  std::vector<double> out(by_head.size());
  size_t from = 0;
  for (int64_t s = 0; s < batch; ++s)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t t = starts[s]; t < starts[s + 1]; ++t)
        for (int64_t d = 0; d < dim; ++d) out[static_cast<size_t>((t * heads + h) * dim + d)] = by_head[from++];
  return out;
}

}  // namespace

Recurred gated_delta(const GatedDelta& op) {
  Recurred result;
  std::vector<double> out;
  const int64_t width = 2 * op.k_heads * op.k_dim + op.v_heads * op.v_dim;
  for (int64_t s = 0; s < op.batch; ++s)
    for (int64_t h = 0; h < op.v_heads; ++h) {
      const int64_t key_head = h / (op.v_heads / op.k_heads);
      std::vector<double> state = state_of(op.states, s, op.v_heads, h, op.k_dim * op.v_dim);
      for (int64_t t = op.starts[s]; t < op.starts[s + 1]; ++t) {
        const auto part = [&](int64_t at, int64_t count) { return elements(op.qkv, op.dtype, t * width + at, count); };
        std::vector<double> q = unit(part(key_head * op.k_dim, op.k_dim));
        for (double& x : q) x /= std::sqrt(static_cast<double>(op.k_dim));
        const std::vector<double> k = unit(part((op.k_heads + key_head) * op.k_dim, op.k_dim));
        const std::vector<double> v = part(2 * op.k_heads * op.k_dim + h * op.v_dim, op.v_dim);
        const double a = element(op.a, op.dtype, t * op.gate_stride + h),
                     b = element(op.b, op.dtype, t * op.gate_stride + h);
        const double decay = std::exp(-std::exp(double{op.a_log[h]}) * softplus(a + double{op.dt_bias[h]}));
        recur(state, k, q, v, decay, 1 / (1 + std::exp(-b)), true, out);
      }
      result.states.insert(result.states.end(), state.begin(), state.end());
    }
  result.out = by_token(out, op.starts, op.batch, op.v_heads, op.v_dim);
  return result;
}

Recurred mamba2(const Mamba2& op) {
  Recurred result;
  std::vector<double> out;
  const int64_t inner = op.heads * op.head_dim, width = inner + 2 * op.groups * op.state;
  for (int64_t s = 0; s < op.batch; ++s)
    for (int64_t h = 0; h < op.heads; ++h) {
      const int64_t group = h / (op.heads / op.groups);
      std::vector<double> state = state_of(op.states, s, op.heads, h, op.state * op.head_dim);
      for (int64_t t = op.starts[s]; t < op.starts[s + 1]; ++t) {
        const auto part = [&](int64_t at, int64_t count) { return elements(op.xbc, op.dtype, t * width + at, count); };
        const std::vector<double> x = part(h * op.head_dim, op.head_dim);
        const double delta = softplus(element(op.dt, op.dtype, t * op.dt_stride + h) + double{op.dt_bias[h]});
        const double decay = std::exp(-std::exp(double{op.a_log[h]}) * delta);
        recur(state, part(inner + group * op.state, op.state), part(inner + (op.groups + group) * op.state, op.state),
              x, decay, delta, false, out);
        for (int64_t d = 0; d < op.head_dim; ++d)
          out[out.size() - x.size() + static_cast<size_t>(d)] += double{op.skip[h]} * x[static_cast<size_t>(d)];
      }
      result.states.insert(result.states.end(), state.begin(), state.end());
    }
  result.out = by_token(out, op.starts, op.batch, op.heads, op.head_dim);
  return result;
}

}  // namespace drydock::kernels::reference
