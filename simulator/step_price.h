#pragma once
// The time of one step of an engine instance from what its ranks do in it.
#include <cstdint>
#include <map>
#include <span>
#include <tuple>
#include <vector>

#include "scheduler/scheduler.h"
#include "simulator/step_time.h"

namespace drydock::simulator {

// What one attention-DP rank does in a step.
struct StepWork {
  double decodes = 0;         // sequences that decode
  double decode_context = 0;  // KV tokens of these before the step, in all
  std::span<const scheduler::Chunk> prompts;
  double moved_kv_tokens = 0;  // swapped from or to the host
};

// A step of decode only, and those after it while nothing but the contexts changes: step i takes first_us + i x
// growth_us.
struct StepLine {
  double first_us = 0, growth_us = 0;
  int64_t steps = 1;  // that the line holds for

  double total_us(int64_t count) const {
    const auto n = static_cast<double>(count);
    return n * first_us + growth_us * n * (n - 1) / 2;
  }
  // The fewest steps that take `us` or more; at most `most`.
  int64_t steps_until(double us, int64_t most) const;
};

// What one rank brings to a step, and to the steps after it while it goes on decoding the same sequences. Ranks that
// change nothing are priced once for all of these.
struct RankStep {
  double own_us = 0, growth_us = 0;  // its decode by itself: step i takes own_us + i x growth_us
  int64_t steps = INT64_MAX;         // that this holds for
  double tokens = 0;                 // of its decode, which all ranks' experts see
  double host_us = 0;
  // With its prompts, in the pipeline stage that has them; as above without any.
  bool has_prompts = false;
  double prompt_own_us = 0, prompt_tokens = 0, prompt_host_us = 0;
  double moved_kv_tokens = 0;

  void advance(int64_t count) {
    own_us += growth_us * static_cast<double>(count);
    prompt_own_us = own_us;
    steps -= count;
  }
};

class StepPrice {
 public:
  virtual ~StepPrice() = default;
  // Every decoding sequence grows by `growth` tokens a step.
  virtual RankStep rank_step(const StepWork& work, double growth) = 0;
  // One entry per rank; ranks step together. For one step only where a rank has prompts or moves KV.
  virtual StepLine line(std::span<const RankStep> ranks) = 0;
  // From the end of a step to the time its last pipeline stage has the tokens of its prompts [us].
  virtual double drain_us(std::span<const RankStep> ranks) { return 0 * ranks.front().own_us; }

  // The same from the ranks' work.
  StepLine line(std::span<const StepWork> ranks, double growth);
  double step_us(std::span<const StepWork> ranks) { return line(ranks, 1).first_us; }
  double drain_us(std::span<const StepWork> ranks);

 private:
  std::span<const RankStep> rank_steps(std::span<const StepWork> ranks, double growth);
  std::vector<RankStep> rank_steps_;
};

// How unevenly tokens meet experts, and what overlaps with what.
struct StepOptions {
  double expert_imbalance = 1;         // busiest GPU's expert load over the mean
  bool two_batch_overlap = false;      // expert communication of one half-batch beside the compute of the other
  bool shared_expert_overlap = false;  // shared expert beside routed ones
  int64_t decode_tokens = 1;           // tokens per decoding sequence in the step: 1 + drafts
  // What making the drafts takes per step: passes over the stage's layers and over the output head, with one token a
  // decoding sequence; in kernel time.
  double draft_layers = 0, draft_heads = 0;
  double swap_us_per_token = 0;  // of KV between GPU and host
  double slowdown = 1;           // of a GPU that is slower than it should be
  bool remembers = false;        // what reprice() needs to be quick
};

// Prices from kernel times through tables that fill themselves: everything that sees only the number of tokens, decode
// attention by sequences and context, prompt attention by sequences, tokens and cached tokens, the output head by
// sequences. Linear between neighbouring points, which lie dense enough that docs/accuracy.md's errors don't notice.
// Not safe for concurrent use. With pipeline stages a step is a round: every stage sees a share of the sequences, the
// slowest sets the pace.
class TablePrice : public StepPrice {
 public:
  TablePrice(const StepTimer& timer, int attention_dp, const StepOptions& options = {});

  using StepPrice::drain_us;
  using StepPrice::line;
  RankStep rank_step(const StepWork& work, double growth) override;
  StepLine line(std::span<const RankStep> ranks) override;
  double drain_us(std::span<const RankStep> ranks) override;

  // The backend's figures have changed.
  void reprice();

  // The least that a request can add to the time of its rank: its tokens in steps of at most `max_tokens` tokens and
  // `max_decodes` decoding sequences, however they are combined.
  struct Demand {
    double prompt_tokens = 0, decode_steps = 0, context = 0;  // context: KV tokens at its first decode step
    double max_decodes = 1, max_tokens = 1;
    bool alone = false;  // the other ranks may be idle, and then experts see this rank's tokens only
  };
  double least_us(const Demand& demand);

 private:
  // What sees only the number of tokens.
  struct Tokens {
    double own = 0, experts = 0, exchange = 0;
  };
  // Decode attention at a mean context: its value, what it grows by per token of context, and up to which context.
  struct Segment {
    double us = 0, slope = 0, end = 0;
  };
  // A stage's share of a step: a rank's own time and what all ranks do together.
  struct Stage {
    double own = 0, experts = 0, exchange = 0;
    double us(bool overlaps) const;
  };

  Tokens tokens_us(double tokens);
  double head_us(double sequences);
  Segment decode_attention(double sequences, double context);  // of the verification and of the drafts
  Segment decode_attention(double sequences, double context, bool drafting);
  double draft_us(double sequences);  // attention aside
  double prompt_attention(double sequences, double tokens, double cached);
  double prompt_attention(std::span<const scheduler::Chunk> prompts);

  void find_stage();
  const Tokens& token_node(size_t level);
  double head_node(size_t level);
  double decode_node(size_t sequences, size_t context, bool drafting);
  double prompt_node(size_t sequences, size_t tokens, size_t cached);
  double prompt_node_at(size_t sequences, size_t tokens, double cached);
  StepTimer::Parts parts(const models::BatchPart& part) { return parts(part, stage_); }
  StepTimer::Parts parts(const models::BatchPart& part, int stage);

  void add_prompts(const StepWork& work, double decodes, double attention_us, RankStep& out);
  double own_us(double tokens, double attention_us, double emitting);
  double stage_us(std::span<const RankStep> ranks, bool prompts);

  const StepTimer* timer_;
  double attention_dp_;
  StepOptions options_;
  int stage_ = 0;               // the slowest
  double gap_us_ = 0;           // between the kernels of its layers
  double least_prompt_us_ = 0;  // of its kernels in a step with prompts
  StepTimer::Scratch scratch_;
  StepTimer::Terms terms_;
  using Key = std::tuple<double, int64_t, int64_t, bool, bool, int>;  // a batch of one part, and the stage
  std::map<Key, StepTimer::Terms> remembered_;
  std::vector<Tokens> tokens_;                          // by level of their grid; own < 0: not priced yet
  std::vector<double> head_, decode_, draft_, prompt_;  // < 0: not priced yet; draft_: decode_ with one token each
};

}  // namespace drydock::simulator
