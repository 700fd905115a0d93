#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/reference.h"
#include "kernels/reference_rows.h"

namespace drydock::kernels::reference {
namespace {

// One row of the paged cache, all its numbers scaled.
std::vector<double> cached(const PagedKv& kv, const void* data, float scale, int64_t sequence, int64_t head,
                           int64_t t) {
  const int64_t block = kv.blocks[sequence * kv.blocks_per_sequence + t / kv.block_tokens];
  const int64_t slot = block * kv.block_tokens + t % kv.block_tokens;
  std::vector<double> row = elements(data, kv.dtype, (slot * kv.kv_heads + head) * kv.head_dim, kv.head_dim);
  for (double& x : row) x *= scale;
  return row;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// sum of softmax(logits)_t * values[t], a sink taking its part. No values give zeros.
std::vector<double> mixed(const std::vector<double>& logits, const std::vector<std::vector<double>>& values,
                          const float* sink, int64_t width) {
  std::vector<double> out(static_cast<size_t>(width));
  if (values.empty()) return out;
  double top = *std::max_element(logits.begin(), logits.end());
  if (sink != nullptr) top = std::max(top, double{*sink});
  double sum = sink != nullptr ? std::exp(*sink - top) : 0;
  for (const double x : logits) sum += std::exp(x - top);
  for (size_t t = 0; t < values.size(); ++t)
    for (int64_t d = 0; d < width; ++d) out[d] += std::exp(logits[t] - top) / sum * values[t][d];
  return out;
}

// One query of one head over tokens [first, last) of its sequence.
std::vector<double> attend(const std::vector<double>& q, const PagedKv& kv, int64_t sequence, int64_t kv_head,
                           int64_t first, int64_t last, double scale, const float* sink) {
  std::vector<double> logits;
  std::vector<std::vector<double>> values;
  for (int64_t t = std::max<int64_t>(first, 0); t < last; ++t) {
    logits.push_back(scale * dot(q, cached(kv, kv.k, kv.k_scale, sequence, kv_head, t)));
    values.push_back(cached(kv, kv.v, kv.v_scale, sequence, kv_head, t));
  }
  return mixed(logits, values, sink, kv.head_dim);
}

}  // namespace

std::vector<double> decode_attention(const DecodeAttention& op) {
  std::vector<double> out;
  const int64_t dim = op.kv.head_dim, group = op.heads / op.kv.kv_heads;
  for (int64_t s = 0; s < op.batch; ++s) {
    for (int64_t h = 0; h < op.heads; ++h) {
      const std::vector<double> q = elements(op.q, op.dtype, (s * op.heads + h) * dim, dim);
      const int64_t last = op.contexts[s], first = op.window > 0 ? last - op.window : 0;
      const float* sink = op.sinks != nullptr ? op.sinks + h : nullptr;
      const std::vector<double> head = attend(q, op.kv, s, h / group, first, last, op.scale, sink);
      out.insert(out.end(), head.begin(), head.end());
    }
  }
  return out;
}

std::vector<double> prefill_attention(const PrefillAttention& op) {
  std::vector<double> out;
  const int64_t dim = op.kv.head_dim, group = op.heads / op.kv.kv_heads;
  for (int64_t s = 0; s < op.batch; ++s) {
    for (int64_t row = op.starts[s]; row < op.starts[s + 1]; ++row) {
      const int64_t last = op.contexts[s] - (op.starts[s + 1] - row) + 1;
      const int64_t first = op.window > 0 ? last - op.window : 0;
      for (int64_t h = 0; h < op.heads; ++h) {
        const std::vector<double> q = elements(op.q, op.dtype, (row * op.heads + h) * dim, dim);
        const float* sink = op.sinks != nullptr ? op.sinks + h : nullptr;
        const std::vector<double> head = attend(q, op.kv, s, h / group, first, last, op.scale, sink);
        out.insert(out.end(), head.begin(), head.end());
      }
    }
  }
  return out;
}

namespace {

// Appends what row `row` of op's queries reads, head by head, from `rows` of latent and rope.
template <typename Op>
void attend_latent(const Op& op, int64_t row, const std::vector<std::vector<double>>& rows, std::vector<double>& out) {
  const int64_t width = op.latent + op.rope;
  for (int64_t h = 0; h < op.heads; ++h) {
    const std::vector<double> q = elements(op.q, op.dtype, (row * op.heads + h) * width, width);
    std::vector<double> logits;
    for (const auto& latent : rows) logits.push_back(op.scale * dot(q, latent));
    const std::vector<double> head = mixed(logits, rows, nullptr, op.latent);
    out.insert(out.end(), head.begin(), head.end());
  }
}

}  // namespace

std::vector<double> mla_decode(const MlaDecode& op) {
  std::vector<double> out;
  const int64_t width = op.latent + op.rope;
  for (int64_t s = 0; s < op.batch; ++s) {
    std::vector<std::vector<double>> rows;
    for (int64_t t = 0; t < op.contexts[s]; ++t) {
      const int64_t block = op.blocks[s * op.blocks_per_sequence + t / op.block_tokens];
      rows.push_back(elements(op.cache, op.dtype, (block * op.block_tokens + t % op.block_tokens) * width, width));
    }
    attend_latent(op, s, rows, out);
  }
  return out;
}

std::vector<double> sparse_mla(const SparseMla& op) {
  std::vector<double> out;
  const int64_t width = op.latent + op.rope;
  for (int64_t token = 0; token < op.tokens; ++token) {
    std::vector<std::vector<double>> rows;
    for (int64_t i = 0; i < op.counts[token]; ++i) {
      const int64_t t = op.selected[token * op.most_selected + i];
      const int64_t block = op.blocks[op.sequences[token] * op.blocks_per_sequence + t / op.block_tokens];
      rows.push_back(elements(op.cache, op.dtype, (block * op.block_tokens + t % op.block_tokens) * width, width));
    }
    attend_latent(op, token, rows, out);
  }
  return out;
}

Indexed index_score(const IndexScore& op) {
  Indexed out;
  for (int64_t s = 0; s < op.batch; ++s) {
    for (int64_t token = op.starts[s]; token < op.starts[s + 1]; ++token) {
      const int64_t seen = op.contexts[s] - (op.starts[s + 1] - token) + 1;
      std::vector<double> scores;
      for (int64_t t = 0; t < seen; ++t) {
        const int64_t block = op.blocks[s * op.blocks_per_sequence + t / op.block_tokens];
        const int64_t slot = block * op.block_tokens + t % op.block_tokens;
        const std::vector<double> key = elements(op.keys, core::Dtype::fp8, slot * op.head_dim, op.head_dim);
        double score = 0;
        for (int64_t h = 0; h < op.heads; ++h) {
          const auto q = elements(op.q, core::Dtype::fp8, (token * op.heads + h) * op.head_dim, op.head_dim);
          score += op.weights[token * op.heads + h] * std::max(dot(q, key), 0.0);
        }
        scores.push_back(score * op.key_scales[slot]);
      }
      std::vector<int32_t> order(scores.size());
      std::iota(order.begin(), order.end(), 0);
      const auto rank = [&](int32_t t) { return std::isnan(scores[t]) ? -INFINITY : scores[t]; };
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return rank(a) > rank(b); });
      order.resize(std::min(order.size(), static_cast<size_t>(op.top_k)));
      std::sort(order.begin(), order.end());
      out.scores.push_back(std::move(scores));
      out.selected.push_back(std::move(order));
    }
  }
  return out;
}

std::vector<double> mla_prefill(const MlaPrefill& op) {
  std::vector<double> out;
  const int64_t row_width = op.nope + op.value_dim;
  for (int64_t s = 0; s < op.batch; ++s) {
    for (int64_t row = op.starts[s]; row < op.starts[s + 1]; ++row) {
      const int64_t end = op.key_starts[s + 1] - (op.starts[s + 1] - row) + 1;
      for (int64_t h = 0; h < op.heads; ++h) {
        const std::vector<double> q =
            elements(op.q, op.dtype, (row * op.heads + h) * (op.nope + op.rope), op.nope + op.rope);
        std::vector<double> logits;
        std::vector<std::vector<double>> values;
        for (int64_t key = op.key_starts[s]; key < end; ++key) {
          std::vector<double> k = elements(op.kv, op.dtype, (key * op.heads + h) * row_width, op.nope);
          const std::vector<double> rope = elements(op.k_rope, op.dtype, key * op.rope_stride, op.rope);
          k.insert(k.end(), rope.begin(), rope.end());
          logits.push_back(op.scale * dot(q, k));
          values.push_back(elements(op.kv, op.dtype, (key * op.heads + h) * row_width + op.nope, op.value_dim));
        }
        const std::vector<double> head = mixed(logits, values, nullptr, op.value_dim);
        out.insert(out.end(), head.begin(), head.end());
      }
    }
  }
  return out;
}

Roped rope_append(const RopeAppend& op) {
  Roped out;
  const int64_t dim = op.kv.head_dim, half = dim / 2, rotated = op.heads + op.kv.kv_heads;
  for (int64_t t = 0; t < op.tokens; ++t) {
    for (int64_t h = 0; h < rotated + op.kv.kv_heads; ++h) {
      std::vector<double> x = elements(op.qkv, op.dtype, (t * (rotated + op.kv.kv_heads) + h) * dim, dim);
      if (op.q_norm != nullptr && h < rotated) {
        const std::vector<double> weight = elements(h < op.heads ? op.q_norm : op.k_norm, op.dtype, 0, dim);
        const double root = std::sqrt(dot(x, x) / static_cast<double>(dim) + double{op.epsilon});
        for (int64_t i = 0; i < dim; ++i) x[i] *= weight[i] / root;
      }
      for (int64_t i = 0; i < half && h < rotated; ++i) {
        const double angle = double{op.inverse_frequencies[i]} * op.positions[t], low = x[i], high = x[i + half];
        x[i] = low * std::cos(angle) - high * std::sin(angle);
        x[i + half] = high * std::cos(angle) + low * std::sin(angle);
      }
      out.qkv.insert(out.qkv.end(), x.begin(), x.end());
      if (h >= op.heads) (h < rotated ? out.k : out.v).insert((h < rotated ? out.k : out.v).end(), x.begin(), x.end());
    }
  }
  return out;
}

}  // namespace drydock::kernels::reference
