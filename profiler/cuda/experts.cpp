#include "profiler/cuda/experts.h"

#include <algorithm>
#include <numeric>

#include "core/random.h"

namespace drydock::profiler::cuda {

std::vector<int32_t> random_experts(int64_t tokens, int64_t top_k, int64_t experts, uint64_t seed) {
  core::Random random(seed);
  std::vector<int32_t> all(static_cast<size_t>(experts)), out;
  out.reserve(static_cast<size_t>(tokens * top_k));
  std::iota(all.begin(), all.end(), 0);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t c = 0; c < top_k; ++c) {
      std::swap(all[static_cast<size_t>(c)], all[static_cast<size_t>(random.integer(c, experts - 1))]);
      out.push_back(all[static_cast<size_t>(c)]);
    }
  return out;
}

Exchange exchange_of(const std::vector<int32_t>& chosen, int64_t top_k, int64_t experts, int64_t rank, int64_t ranks) {
  Exchange out;
  out.tokens.assign(static_cast<size_t>(ranks), 0);
  out.rows.assign(chosen.size(), -1);
  const int64_t per_rank = std::max<int64_t>(experts / ranks, 1);
  for (int64_t to = 0; to < ranks; ++to) {
    if (to == rank) continue;
    int64_t last = -1;
    for (size_t pair = 0; pair < chosen.size(); ++pair) {
      const int64_t token = static_cast<int64_t>(pair) / top_k;
      if (std::min(chosen[pair] / per_rank, ranks - 1) != to || token == last) continue;
      last = token;
      out.rows[pair] = static_cast<int32_t>(out.sources.size());
      out.sources.push_back(static_cast<int32_t>(token));
      ++out.tokens[static_cast<size_t>(to)];
    }
  }
  return out;
}

}  // namespace drydock::profiler::cuda
