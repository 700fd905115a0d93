#pragma once
// Which experts tokens go to, drawn on the host.
#include <cstdint>
#include <vector>

namespace drydock::profiler::cuda {

// (tokens, top_k): different experts for each token, all alike likely; the same for the same `seed`.
std::vector<int32_t> random_experts(int64_t tokens, int64_t top_k, int64_t experts, uint64_t seed = 11);

// How the tokens of one rank go to `ranks` ranks, each once to a rank however many of its experts lie there.
struct Exchange {
  std::vector<int64_t> tokens;   // (ranks): tokens that go to each; none to itself
  std::vector<int32_t> sources;  // (sum of tokens): token of each row sent, rank by rank
  std::vector<int32_t> rows;     // (tokens, top_k): row of the answer, told once for a rank; -1: none, or at home
};
Exchange exchange_of(const std::vector<int32_t>& chosen, int64_t top_k, int64_t experts, int64_t rank, int64_t ranks);

}  // namespace drydock::profiler::cuda
