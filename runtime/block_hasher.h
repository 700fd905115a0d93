#pragma once
// Names of a sequence's full KV blocks, by which the prefix cache finds them again.
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/generation.h"

namespace drydock::runtime {

// A block's name is the first 64 bits of SHA-256 over a key, the hash of the block before it and its tokens. Nobody
// who does not know the key, which is drawn when the object is made, can make two texts meet.
class BlockHasher {
 public:
  explicit BlockHasher(int64_t block_tokens);
  ~BlockHasher();

  using Digest = std::array<unsigned char, 32>;
  // Of one sequence: what has been hashed so far.
  struct Chain {
    Digest last{};
    int64_t blocks = 0;
  };
  // Appends the names of the full blocks of `tokens` beyond those that `chain` has seen.
  void extend(Chain& chain, std::span<const Token> tokens, std::vector<uint64_t>& names);

 private:
  struct Context;
  std::unique_ptr<Context> context_;
  int64_t block_tokens_;
  Digest key_{};
};

}  // namespace drydock::runtime
