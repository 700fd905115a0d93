#pragma once
// Hashes of the KV blocks of made-up prompts: equal where the prompts are equal up to the block's end.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/random.h"
#include "simulator/lengths.h"
#include "simulator/option_check.h"

namespace drydock::simulator {

// Share of each prompt that begins like all others'. Shares nothing, and gives no hashes, while hash_tokens is 0.
struct PrefixSharing {
  double hit = 0;           // share of the prompt's tokens, from 0 to below 1; whole blocks, right on average
  int64_t hash_tokens = 0;  // tokens of a block
};

// Throws core::Error on a share or a block out of range.
inline void check_sharing(const PrefixSharing& sharing) {
  check_range("share of a common prefix", sharing.hit, 0, 0.999999);
  check_range("hash tokens", sharing.hash_tokens, 0, kMostTokens);
  if (sharing.hit > 0 && sharing.hash_tokens == 0)
    throw core::Error("share of a common prefix: want hash tokens above 0 with it");
}

// The `index`-th block of the text named `text`, when the first `tokens` tokens of the block are there.
constexpr uint64_t block_hash(uint64_t text, int64_t index, int64_t tokens) {
  return core::mix(core::mix(text ^ (static_cast<uint64_t>(index) << 24)) + static_cast<uint64_t>(tokens));
}

// Blocks of `tokens` tokens into `hashes`: the first `shared` ones of text 0, the others of `text`, which is not 0.
inline void hash_blocks(uint64_t text, int64_t shared, int64_t tokens, int64_t hash_tokens,
                        std::vector<uint64_t>& hashes) {
  hashes.clear();
  for (int64_t index = 0, start = 0; start < tokens; ++index, start += hash_tokens)
    hashes.push_back(block_hash(index < shared ? 0 : text, index, std::min(hash_tokens, tokens - start)));
}

// Gives each of a load's prompts its hashes.
class PrefixHasher {
 public:
  PrefixHasher(PrefixSharing sharing, uint64_t seed, uint64_t stream) : sharing_(sharing), random_(seed, stream) {}

  int64_t hash_tokens() const { return sharing_.hash_tokens; }

  // Of a prompt that is unlike the ones before but for the shared part.
  void hash(int64_t prompt_tokens, std::vector<uint64_t>& hashes) {
    hashes.clear();
    if (sharing_.hash_tokens <= 0) return;
    const auto block = static_cast<double>(sharing_.hash_tokens);
    const auto shared =
        static_cast<int64_t>(sharing_.hit * static_cast<double>(prompt_tokens) / block + random_.uniform());
    hash_blocks(random_.next() | 1, std::min(shared, prompt_tokens / sharing_.hash_tokens), prompt_tokens,
                sharing_.hash_tokens, hashes);
  }

 private:
  PrefixSharing sharing_;
  core::Random random_;
};

}  // namespace drydock::simulator
