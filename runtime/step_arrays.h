#pragma once
// A step's work as the arrays that kernels read: sequences with several new tokens (chunks) first, then those with one.
#include <cstddef>
#include <cstdint>

#include "runtime/engine.h"

namespace drydock::runtime {

struct StepExtents {
  int64_t chunks = 0, chunk_tokens = 0;  // sequences with several new tokens, and those tokens
  int64_t singles = 0;                   // sequences with one
  int64_t outputs = 0;                   // logits wanted
  int64_t blocks_per_sequence = 1;       // of the longest
  int64_t longest_chunk = 0;             // [tokens]
  int64_t chunk_context = 0;             // most tokens in the cache with a chunk
  int64_t single_context = 0;            // and with a single token
  int64_t followed = 0;                  // outputs that the step before must have had: SequenceWork::follows and one

  int64_t tokens() const { return chunk_tokens + singles; }
  int64_t sequences() const { return chunks + singles; }
};

// Views into one piece of memory, on the host or a device. Rows of tokens, sequences and outputs.
struct StepArrays {
  int32_t *ids = nullptr, *positions = nullptr, *sequence_of = nullptr;  // (tokens)
  int32_t* follows = nullptr;                                            // (tokens): SequenceWork::follows, or -1
  int32_t* blocks = nullptr;                                             // (sequences, blocks_per_sequence)
  int32_t* contexts = nullptr;                                           // (sequences): with the new tokens
  int32_t* starts = nullptr;                                             // (chunks + 1)
  int32_t* output_rows = nullptr;                                        // (outputs): rows of tokens
  float *temperatures = nullptr, *top_p = nullptr;                       // (outputs)
  int32_t* top_k = nullptr;                                              // (outputs)
  uint64_t *seeds = nullptr, *counters = nullptr;                        // (outputs)

  // Where they lie in memory that begins at `base`, aligned to 16; null: nowhere. `bytes`: how much that is.
  static StepArrays at(std::byte* base, const StepExtents& extents, size_t& bytes);
};

// Throws core::Error on work that is none: tokens or blocks out of range, too few blocks, more outputs than tokens,
// more than one token that follows.
StepExtents extents_of(const RankWork& work, int64_t vocabulary, int64_t kv_blocks, int64_t block_tokens,
                       int64_t longest);

// The extents that a step of decoding only (no chunks, an output each) is padded to, so that few CUDA graphs serve many
// steps: batches of 1, 2, 4, 8, then
// multiples of 8 up to 64 and of 16 beyond; contexts in steps of an eighth of a power of two, at least 16 blocks.
// Splits of decode attention are chosen for the padded context, at most an eighth too long.
StepExtents padded_extents(const StepExtents& extents, int64_t block_tokens);

// Fills host arrays; places of `padded` beyond the work's own extents are sequences of one token, whose KV goes to
// block `spare_block`. Outputs are in the order of StepResult: prompts, then decodes.
void fill_step(const RankWork& work, const StepExtents& padded, int32_t spare_block, const StepArrays& arrays);

// Calls use(sequence) for prompts, then decodes.
template <typename Use>
void for_each_sequence(const RankWork& work, Use&& use) {
  for (const auto* group : {&work.prompts, &work.decodes})
    for (const SequenceWork& sequence : *group) use(sequence);
}

}  // namespace drydock::runtime
