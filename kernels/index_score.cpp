#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cpu.h"
#include "kernels/isa.h"
#include "kernels/operands.h"
#include "kernels/scratch.h"

namespace drydock::kernels::cpu {
namespace {

constexpr int64_t kIndexHeads = 8;  // as many as Isa::dots takes at once

enum IndexScratch { kIndexQueries = 48, kIndexKeys, kIndexDots, kIndexScores };

// Scores of tokens [first, first + count) of one block of the cache for one token.
void score_block(const IndexScore& op, int64_t token, const float* q, int64_t slot, int64_t count, float* scores) {
  float* dots = scratch<kIndexDots>(kIndexHeads * count);
  float* keys = scratch<kIndexKeys>(count * op.head_dim);  // once for all heads
  isa().widen(at(op.keys, core::Dtype::fp8, slot * op.head_dim), core::Dtype::fp8, count * op.head_dim, 1, keys);
  std::fill(scores, scores + count, 0.0F);
  for (int64_t h = 0; h < op.heads; h += kIndexHeads) {
    Dots product{.a = q + h * padded(op.head_dim), .a_stride = padded(op.head_dim), .k = op.head_dim};
    product.m = std::min(kIndexHeads, op.heads - h);
    product.weights = keys, product.dtype = core::Dtype::fp32, product.stride = op.head_dim;
    product.out = dots, product.out_stride = count;
    isa().dots(product, 0, count);
    for (int64_t i = 0; i < product.m; ++i) {
      const float weight = op.weights[token * op.heads + h + i];
      for (int64_t t = 0; t < count; ++t) scores[t] += weight * (dots[i * count + t] < 0 ? 0 : dots[i * count + t]);
    }
  }
  for (int64_t t = 0; t < count; ++t) scores[t] *= op.key_scales[slot + t];
}

// The `count` highest of `seen` scores, rising by position.
void select(float* scores, int64_t seen, int64_t count, int32_t* selected) {
  if (count == seen) return std::iota(selected, selected + count, 0);
  for (int64_t t = 0; t < seen; ++t)
    if (std::isnan(scores[t])) scores[t] = -INFINITY;
  std::vector<int32_t> order(static_cast<size_t>(seen));
  std::iota(order.begin(), order.end(), 0);
  std::nth_element(order.begin(), order.begin() + count, order.end(),
                   [&](int32_t a, int32_t b) { return scores[a] > scores[b] || (scores[a] == scores[b] && a < b); });
  std::copy_n(order.begin(), count, selected);
  std::sort(selected, selected + count);
}

void index_token(const IndexScore& op, int64_t sequence, int64_t token) {
  const int64_t seen = op.contexts[sequence] - (op.starts[sequence + 1] - token) + 1, stride = padded(op.head_dim);
  float* q = scratch<kIndexQueries>(op.heads * stride);
  for (int64_t h = 0; h < op.heads; ++h) {
    isa().widen(at(op.q, core::Dtype::fp8, (token * op.heads + h) * op.head_dim), core::Dtype::fp8, op.head_dim, 1,
                q + h * stride);
    std::fill(q + h * stride + op.head_dim, q + (h + 1) * stride, 0.0F);
  }
  float* scores = scratch<kIndexScores>(seen);
  for (int64_t t = 0; t < seen; t += op.block_tokens) {
    const int64_t slot = int64_t{op.blocks[sequence * op.blocks_per_sequence + t / op.block_tokens]} * op.block_tokens;
    score_block(op, token, q, slot, std::min(op.block_tokens, seen - t), scores + t);
  }
  const int64_t count = std::min(seen, op.top_k);
  select(scores, seen, count, op.selected + token * op.top_k);
  op.counts[token] = static_cast<int32_t>(count);
}

}  // namespace

void index_score(const IndexScore& op, Threads& threads) {
  require(op.heads > 0 && op.head_dim > 0 && op.block_tokens > 0 && op.top_k > 0, "index_score",
          "extents have to be above 0");
  std::vector<int32_t> sequences;
  for (int64_t s = 0; s < op.batch; ++s)
    sequences.insert(sequences.end(), static_cast<size_t>(op.starts[s + 1] - op.starts[s]), static_cast<int32_t>(s));
  threads.parallel_for(op.tokens, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) index_token(op, sequences[static_cast<size_t>(token)], token);
  });
}

}  // namespace drydock::kernels::cpu
