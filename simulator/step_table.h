#pragma once
// Step times of one engine under one workload, priced once per grid point and interpolated in between.
#include <cstdint>
#include <optional>
#include <vector>

#include "simulator/engine_options.h"
#include "simulator/step_time.h"

namespace drydock::simulator {

// Lengths as they reach the engine [tokens].
struct Lengths {
  double fresh = 0;   // of a prompt, computed
  double cached = 0;  // of a prompt, found in the prefix cache
  double output = 0;

  double prompt() const { return fresh + cached; }
  // KV tokens of a sequence, averaged over its decode.
  double mean_context() const { return prompt() + output / 2; }
  bool operator==(const Lengths&) const = default;
};

// Not safe for concurrent use: it fills itself when asked. Counts are those of the whole instance, over its
// attention-DP ranks, which are taken to be loaded alike.
class StepTable {
 public:
  // `max_tokens`: budget of a step of one rank.
  StepTable(const StepTimer& timer, int attention_dp, const Lengths& lengths, int64_t max_tokens,
            const std::optional<scheduler::Speculation>& speculation = {});

  // The time in which each of `running` sequences gets a token: one step, with pipeline stages one round of all
  // microbatches; under speculation a step of verification and its drafts over the tokens that it yields.
  StepCost decode(double running);
  // The steps that take `prompts` (at most prompts_per_step(), or one chunked prompt) to their first token while
  // `running` sequences decode beside them.
  StepCost prefill(double prompts, double running);
  // Time from the first stage to the last beyond the time that one stage is busy, per step [us].
  double prefill_latency_us(double prompts);

  double tokens_per_step() const { return growth_; }              // of a decoding sequence, >= 1
  double prompts_per_step() const { return prompts_per_step_; }   // >= 1
  int64_t steps_per_prompt() const { return steps_per_prompt_; }  // > 1: the prompt is chunked
  const Lengths& lengths() const { return lengths_; }

 private:
  struct Node {
    bool known = false;
    StepCost cost;
  };
  StepCost price_decode(double running);
  StepCost draft(double sequences);
  StepCost price_prefill(double prompts, double running);
  StepCost slowest_stage(const models::BatchPart& prompt, const models::BatchPart& decode);
  int64_t chunk_tokens() const;
  const StepCost& decode_node(int level);
  const StepCost& prefill_node(int prompt_level, int running_level);
  double prompts_at(int level) const;

  const StepTimer* timer_;
  double attention_dp_;
  Lengths lengths_;
  int64_t max_tokens_;
  std::optional<scheduler::Speculation> speculation_;
  int64_t decode_tokens_ = 1;  // of a sequence in a step
  double growth_ = 1;          // of these, to keep
  double prompts_per_step_;
  int64_t steps_per_prompt_;
  std::vector<Node> decode_;   // by level: running = 2^(level - 1), level 0: none
  std::vector<Node> prefill_;  // [prompt level][running level]
  StepTimer::Scratch scratch_;
};

}  // namespace drydock::simulator
