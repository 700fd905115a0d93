#pragma once
// Paged caches in this host's memory; a part of the launches.
#include <cmath>
#include <numeric>
#include <vector>

#include "core/random.h"
#include "profiler/cpu_operands.h"

namespace drydock::profiler {

inline constexpr int64_t kBlockTokens = 32;  // as models::kKvBlockTokens

// A paged cache of `batch` sequences of `tokens` each, `row_bytes` a token, in blocks at random.
struct Pages {
  Pages(core::Dtype dtype, int64_t batch, int64_t tokens, int64_t row_bytes)
      : per_sequence((tokens + kBlockTokens - 1) / kBlockTokens),
        pool(stored(dtype), batch * per_sequence * kBlockTokens * row_bytes),
        blocks(static_cast<size_t>(batch * per_sequence)) {
    std::iota(blocks.begin(), blocks.end(), 0);
    core::Random random(13);
    for (size_t i = blocks.size(); i-- > 1;)
      std::swap(blocks[i], blocks[static_cast<size_t>(random.integer(0, static_cast<int64_t>(i)))]);
  }
  int64_t per_sequence;
  Rotation pool;
  std::vector<int32_t> blocks;
};

inline float softmax_scale(int64_t head_dim) { return 1.0F / std::sqrt(static_cast<float>(head_dim)); }

}  // namespace drydock::profiler
