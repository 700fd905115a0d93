#pragma once
// An engine without a model: its steps take as long as they are predicted to, its tokens are drawn from printable
// bytes.
#include <optional>
#include <span>
#include <vector>

#include "runtime/engine.h"
#include "scheduler/speculation.h"
#include "simulator/step_price.h"

namespace drydock::runtime {

struct EmulatedOptions {
  int ranks = 1;          // attention DP
  double time_scale = 1;  // of the predicted times; 0: no waiting at all
  bool drains = true;     // tokens of prompts are known when the last pipeline stage has them: StepResult::drain_us
};

// The token of an answer's place `index` under a seed: a printable ASCII character, whatever the prompt.
Token emulated_token(uint64_t seed, int64_t index);

// Keeps a reference to `price`, which it alone uses.
class EmulatedEngine : public Engine {
 public:
  EmulatedEngine(simulator::StepPrice& price, const EmulatedOptions& options);

  int ranks() const override { return options_.ranks; }
  int64_t vocabulary() const override { return INT32_MAX; }  // it takes any prompt
  // Waits for the step's end on the steady clock. Ends of steps that follow each other are counted from the first one's
  // beginning, so that what one is late by, the next ones make up for; idle() begins anew.
  void step(std::span<const RankWork> ranks, StepResult& result) override;
  void idle() override { last_end_.reset(); }
  size_t kv_block_bytes() const override { return 0; }
  void read_kv(int, std::span<const int32_t>, std::span<std::byte>) override {}
  void write_kv(int, std::span<const int32_t>, std::span<const std::byte>) override {}

 private:
  void draw(const SequenceWork& work, StepResult& result) const;

  simulator::StepPrice* price_;
  EmulatedOptions options_;
  std::optional<Clock::time_point> last_end_;
  std::vector<std::vector<scheduler::Chunk>> chunks_;
  std::vector<simulator::StepWork> work_;
};

// At most `most` drafts for the places from `index` on, right as often as `speculation` has them accepted.
std::vector<Token> emulated_drafts(const scheduler::Speculation& speculation, uint64_t seed, int64_t index,
                                   int64_t most);

// Sleeps until `when`; returns at once where that is past.
void sleep_until(Clock::time_point when);

}  // namespace drydock::runtime
