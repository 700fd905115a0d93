#pragma once
// Random steps of an indexer in the host's memory, and whether what was selected is what has the highest scores.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "core/random.h"
#include "kernels/element.h"
#include "kernels/reference.h"

namespace drydock::tests {

struct IndexProblem {
  int64_t heads, dim, block_tokens, top_k;
  std::vector<kernels::Fp8> q, keys;
  std::vector<float> weights, key_scales;
  std::vector<int32_t> blocks, starts{0}, contexts, selected, counts;
  int64_t per_sequence = 1, most_new = 0, most_context = 0;

  // Chunks of {new, cached} tokens. Weights of both signs; some keys twice, so that scores are equal.
  IndexProblem(core::Random& random, int64_t head_count, int64_t head_dim, int64_t tokens_of_block, int64_t most,
               const std::vector<std::pair<int32_t, int32_t>>& chunks)
      : heads(head_count), dim(head_dim), block_tokens(tokens_of_block), top_k(most) {
    for (const auto& [fresh, cached] : chunks) {
      starts.push_back(starts.back() + fresh);
      contexts.push_back(fresh + cached);
      most_new = std::max<int64_t>(most_new, fresh);
      most_context = std::max<int64_t>(most_context, fresh + cached);
    }
    per_sequence = (most_context + block_tokens - 1) / block_tokens;
    blocks.resize(chunks.size() * static_cast<size_t>(per_sequence));
    std::iota(blocks.begin(), blocks.end(), 0);
    for (size_t i = blocks.size(); i-- > 1;)
      std::swap(blocks[i], blocks[static_cast<size_t>(random.integer(0, static_cast<int64_t>(i)))]);
    const auto fill = [&](std::vector<kernels::Fp8>& out, int64_t count) {
      for (int64_t i = 0; i < count; ++i) out.push_back(kernels::to_fp8(static_cast<float>(2 * random.uniform() - 1)));
    };
    fill(q, starts.back() * heads * dim);
    fill(keys, static_cast<int64_t>(blocks.size()) * block_tokens * dim);
    for (int64_t i = 0; i < starts.back() * heads; ++i)
      weights.push_back(static_cast<float>(1.5 * random.uniform() - 0.5));
    for (int64_t i = 0; i < static_cast<int64_t>(blocks.size()) * block_tokens; ++i)
      key_scales.push_back(static_cast<float>(0.5 + random.uniform()));
    for (int64_t t = 0; t + 1 < block_tokens; t += 5) {  // in every block
      for (size_t b = 0; b < blocks.size(); ++b) {
        const int64_t slot = static_cast<int64_t>(b) * block_tokens + t;
        std::copy_n(keys.begin() + slot * dim, dim, keys.begin() + (slot + 1) * dim);
        key_scales[static_cast<size_t>(slot + 1)] = key_scales[static_cast<size_t>(slot)];
      }
    }
    selected.assign(static_cast<size_t>(starts.back() * top_k), -1);
    counts.assign(static_cast<size_t>(starts.back()), -1);
  }

  kernels::IndexScore op() {
    kernels::IndexScore op;
    op.q = q.data(), op.weights = weights.data(), op.keys = keys.data(), op.key_scales = key_scales.data();
    op.block_tokens = block_tokens, op.blocks = blocks.data(), op.blocks_per_sequence = per_sequence;
    op.starts = starts.data(), op.contexts = contexts.data();
    op.tokens = starts.back(), op.batch = static_cast<int64_t>(contexts.size()), op.heads = heads;
    op.head_dim = dim, op.most_new = most_new, op.most_context = most_context, op.top_k = top_k;
    op.selected = selected.data(), op.counts = counts.data();
    return op;
  }

  // Empty if it is. Scores within `tolerance` of the lowest selected one may be selected or not; where scores of the
  // reference are equal because keys are, the earlier token is to be preferred.
  static std::string mismatch(const kernels::reference::Indexed& want, const std::vector<int32_t>& selected,
                              const std::vector<int32_t>& counts, int64_t top_k, double tolerance) {
    for (size_t t = 0; t < want.scores.size(); ++t) {
      const std::string where = "token " + std::to_string(t) + ": ";
      const std::vector<double>& scores = want.scores[t];
      const auto begin = selected.begin() + static_cast<int64_t>(t) * top_k, end = begin + counts[t];
      if (counts[t] != static_cast<int32_t>(want.selected[t].size())) return where + "another number of them";
      if (std::adjacent_find(begin, end, std::greater_equal<>()) != end) return where + "they do not rise";
      if (counts[t] == 0) continue;
      double lowest = INFINITY;
      for (const int32_t i : want.selected[t]) lowest = std::min(lowest, scores[static_cast<size_t>(i)]);
      for (size_t i = 0; i < scores.size(); ++i) {
        const bool is = std::binary_search(begin, end, static_cast<int32_t>(i));
        if (is != (scores[i] >= lowest) && std::abs(scores[i] - lowest) > tolerance)
          return where + std::to_string(i) + " with " + std::to_string(scores[i]) + ", the last is " +
                 std::to_string(lowest);
        if (is && i > 0 && scores[i] == scores[i - 1] && !std::binary_search(begin, end, static_cast<int32_t>(i) - 1))
          return where + "an earlier token of the same score than " + std::to_string(i) + " is left out";
      }
      if (std::any_of(end, begin + top_k, [](int32_t i) { return i != -1; })) return where + "written beyond its end";
    }
    return "";
  }
};

}  // namespace drydock::tests
