#pragma once
// Guesses of an answer's next tokens for the model to verify in one step, and which of them it keeps.
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/generation.h"

namespace drydock::runtime {

// One thread uses it at a time.
class Drafter {
 public:
  virtual ~Drafter() = default;
  // At most `most` tokens to follow `tokens` (prompt and answer so far); may be empty. `sequence` names the sequence
  // between calls, so that a drafter may keep state for it.
  virtual std::vector<Token> propose(uint64_t sequence, std::span<const Token> tokens, int64_t most) = 0;
  virtual void forget(uint64_t) {}  // the sequence has ended
};

// Prompt look-up: what followed the latest earlier occurrence of the sequence's last tokens, of the longest run that
// occurs, `most_run` tokens down to `least_run` (Saxena, prompt-lookup-decoding; vLLM's ngram method).
struct NgramOptions {
  int64_t least_run = 2, most_run = 4;
};
std::unique_ptr<Drafter> make_ngram_drafter(const NgramOptions& options);

// A smaller model with the same vocabulary, greedy, on an engine of its own with `kv_blocks` blocks of `block_tokens`.
class Engine;
std::unique_ptr<Drafter> make_model_drafter(std::unique_ptr<Engine> engine, int64_t kv_blocks, int64_t block_tokens);

// The step that verified `drafts` had 1 + drafts.size() outputs, of which `drawn` are the tokens the model drew at each
// position, were the drafts before it true. Since a draw depends on the sampling's seed and the position alone, the
// answer with drafts is the answer without: a draft counts while it is what was drawn. Returns how many of `drawn` are
// the answer's, 1 to drawn.size(): the KV of the sequence is right for its tokens up to and without the last of these.
int64_t accepted(std::span<const Token> drafts, std::span<const GeneratedToken> drawn);

}  // namespace drydock::runtime
