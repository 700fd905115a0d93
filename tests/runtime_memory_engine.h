#pragma once
// An engine whose KV is its tokens: the next token is a hash of what lies in the sequence's blocks, so that a wrong
// block, a stale one or one that did not come over the wire whole changes the answer.
#include <vector>

#include "core/random.h"
#include "runtime/engine.h"

namespace drydock::runtime {

inline Token memory_token(uint64_t hash, uint64_t seed) {
  return static_cast<Token>(core::mix(hash ^ core::mix(seed)) % 1000);
}
inline uint64_t memory_hash(uint64_t hash, Token token) { return core::mix(hash + static_cast<uint64_t>(token) + 1); }

// The answer that it must give.
inline std::vector<Token> memory_answer(const std::vector<Token>& prompt, int64_t tokens, uint64_t seed) {
  uint64_t hash = 0;
  for (const Token t : prompt) hash = memory_hash(hash, t);
  std::vector<Token> out;
  while (static_cast<int64_t>(out.size()) < tokens) {
    out.push_back(memory_token(hash, seed));
    hash = memory_hash(hash, out.back());
  }
  return out;
}

class MemoryEngine : public Engine {
 public:
  MemoryEngine(int64_t kv_blocks, int64_t block_tokens)
      : block_tokens_(block_tokens), cells_(static_cast<size_t>(kv_blocks * block_tokens), -1) {}

  int64_t vocabulary() const override { return 1000; }
  void step(std::span<const RankWork> ranks, StepResult& result) override {
    result = {};
    for (const RankWork& rank : ranks)
      for (const auto* some : {&rank.prompts, &rank.decodes})
        for (const SequenceWork& w : *some) run(w, result);
  }
  size_t kv_block_bytes() const override { return static_cast<size_t>(block_tokens_) * sizeof(Token); }
  void read_kv(int, std::span<const int32_t> blocks, std::span<std::byte> out) override {
    for (size_t i = 0; i < blocks.size(); ++i)
      std::copy_n(std::as_bytes(std::span(cells_)).data() + cell(blocks[i]) * sizeof(Token), kv_block_bytes(),
                  out.data() + i * kv_block_bytes());
  }
  void write_kv(int, std::span<const int32_t> blocks, std::span<const std::byte> in) override {
    for (size_t i = 0; i < blocks.size(); ++i)
      std::copy_n(in.data() + i * kv_block_bytes(), kv_block_bytes(),
                  std::as_writable_bytes(std::span(cells_)).data() + cell(blocks[i]) * sizeof(Token));
  }

 private:
  size_t cell(int32_t block) const { return static_cast<size_t>(block) * static_cast<size_t>(block_tokens_); }
  Token& at(const SequenceWork& w, int64_t position) {
    const int32_t block = w.blocks[static_cast<size_t>(position / block_tokens_)];
    return cells_[cell(block) + static_cast<size_t>(position % block_tokens_)];
  }
  void run(const SequenceWork& w, StepResult& result) {
    const auto count = static_cast<int64_t>(w.tokens.size());
    for (int64_t i = 0; i < count; ++i) at(w, w.context + i) = w.tokens[static_cast<size_t>(i)];
    uint64_t hash = 0;
    for (int64_t p = 0; p < w.context + count; ++p) {
      hash = memory_hash(hash, at(w, p));
      if (p >= w.context + count - w.outputs) result.tokens.push_back({memory_token(hash, w.sampling->seed), 0, {}});
    }
  }

  int64_t block_tokens_;
  std::vector<Token> cells_;
};

}  // namespace drydock::runtime
