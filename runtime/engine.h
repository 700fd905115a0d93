#pragma once
// What does a worker's steps: a model on this machine's processors or GPUs, or a clock that takes as long as one would.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "runtime/generation.h"

namespace drydock::runtime {

// One sequence's part in a step. Its KV before the step are tokens [0, context), in `blocks`.
struct SequenceWork {
  std::span<const Token> tokens;  // to compute, in positions context, context + 1, ...; not empty
  int64_t context = 0;
  std::span<const int32_t> blocks;  // KV blocks of the sequence in order, with room for context + tokens.size()
  int64_t outputs = 0;  // logits wanted of the last so many positions: 0 in the middle of a prompt, and where a
                        // finished sequence is still in the batch (emulated engines only); 1 for the next token, 1 +
                        // drafts to verify drafts
  const Sampling* sampling = nullptr;
  int64_t answered = 0;  // tokens of the answer so far: index of the first one drawn
  // Engines that overlap: the one token is what output `follows` of the step launched before this one drew, whatever
  // stands in `tokens`. -1: tokens are known.
  int64_t follows = -1;
};

// What one attention-DP rank does in a step. Engines that compute have one rank.
struct RankWork {
  std::vector<SequenceWork> prompts, decodes;
  double swapped_kv_tokens = 0;  // moved from or to the host before the step

  bool empty() const { return prompts.empty() && decodes.empty(); }
};

// The drawn tokens: one for each output, ranks in order, prompts before decodes.
struct StepResult {
  std::vector<GeneratedToken> tokens;
  double us = 0;        // that the step took
  double drain_us = 0;  // after it, until the tokens of its prompts are known: what later pipeline stages take
};

// One thread uses it at a time.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual int ranks() const { return 1; }
  virtual int64_t vocabulary() const = 0;
  // Runs the step and returns when its tokens are known. Throws core::Error when the device failed: the worker is lost.
  virtual void step(std::span<const RankWork> ranks, StepResult& result) = 0;
  virtual void idle() {}  // no step follows the last one at once
  // For engines that can be lost between steps: `lost` is called then, once, from another thread.
  virtual void when_lost(std::function<void(const std::string& reason)> lost) { static_cast<void>(lost); }
  // From another thread: a step under way, and those to come, throw soon. Of a rank whose group has lost another.
  virtual void abort() noexcept {}

  // Engines that overlap take a step while another is computed: launch() returns before the step is done, wait() gives
  // the result of the oldest one that was not waited for. At most two are under way; what `ranks` points to may change
  // once launch() has returned. step() is both, with none under way. Both throw as step() does.
  virtual bool overlaps() const { return false; }
  virtual void launch(std::span<const RankWork>) {}
  virtual void wait(StepResult&) {}

  // After all steps that were launched. KV of a rank's blocks as bytes, for a worker that goes on with the sequence:
  // all layers of a block together.
  virtual size_t kv_block_bytes() const = 0;  // 0: an engine without KV, such as the emulated one
  virtual void read_kv(int rank, std::span<const int32_t> blocks, std::span<std::byte> out) = 0;
  virtual void write_kv(int rank, std::span<const int32_t> blocks, std::span<const std::byte> in) = 0;
};

}  // namespace drydock::runtime
