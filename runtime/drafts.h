#pragma once
// Guesses of an answer's next tokens for the model to verify in one step, and which of them it keeps.
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "runtime/generation.h"

namespace drydock::runtime {

// What follows in a sequence whose answer goes on at `index`?
struct DraftQuestion {
  uint64_t sequence = 0;          // names it between calls, so that a drafter may keep state for it
  std::span<const Token> tokens;  // prompt and answer so far
  Sampling sampling;
  int64_t index = 0, most = 0;  // at most so many drafts
};
// Question by question; each may be empty.
using DraftAnswers = std::vector<std::vector<Token>>;
using DraftFunction = std::function<DraftAnswers(std::span<const DraftQuestion>)>;

// Of one that drafts for one sequence at a time.
DraftFunction one_by_one(std::function<std::vector<Token>(const DraftQuestion&)> draft);

// One thread uses it at a time.
class Drafter {
 public:
  virtual ~Drafter() = default;
  // At most `most` tokens to follow `tokens` (prompt and answer so far); may be empty. `sequence` names the sequence
  // between calls, so that a drafter may keep state for it.
  virtual std::vector<Token> propose(uint64_t sequence, std::span<const Token> tokens, int64_t most) = 0;
  // For several sequences, each named once.
  virtual DraftAnswers propose_all(std::span<const DraftQuestion> questions);
  virtual void forget(uint64_t) {}  // the sequence has ended
};

// Prompt look-up: what followed the latest earlier occurrence of the sequence's last tokens, of the longest run that
// occurs, `most_run` tokens down to `least_run` (Saxena, prompt-lookup-decoding; vLLM's ngram method).
struct NgramOptions {
  int64_t least_run = 2, most_run = 4;
};
std::unique_ptr<Drafter> make_ngram_drafter(const NgramOptions& options);

struct ModelDraftOptions {
  int64_t kv_blocks = 0, block_tokens = 0;  // of the engine's cache
  int64_t longest = INT64_MAX;              // sequence of the model [tokens]; beyond it nothing is drafted
  int64_t most_tokens = 4096;               // of one of its steps: a longer prompt takes several
};

// A smaller model with the same vocabulary on an engine of its own; all sequences of a step together, a step of the
// small model a draft. It draws as the sequence's own sampling does, by the same random number for the same place of
// the answer (kernels/sampling.h), so that the closer the models are the more drafts are what the large one draws, with
// equal models all of them: Daliri et al. 2024, "Coupling without Communication and Drafter-Invariant Speculative
// Decoding". Sequences lose their KV, the one that waited longest first, where there is none left for others; those
// that find none have no drafts.
class Engine;
std::unique_ptr<Drafter> make_model_drafter(std::unique_ptr<Engine> engine, const ModelDraftOptions& options);

// The step that verified `drafts` had 1 + drafts.size() outputs, of which `drawn` are the tokens the model drew at each
// position, were the drafts before it true. Since a draw depends on the sampling's seed and the position alone, the
// answer with drafts is the answer without: a draft counts while it is what was drawn. Returns how many of `drawn` are
// the answer's, 1 to drawn.size(): the KV of the sequence is right for its tokens up to and without the last of these.
int64_t accepted(std::span<const Token> drafts, std::span<const GeneratedToken> drawn);

}  // namespace drydock::runtime
