#pragma once
// One engine instance in simulated time: its ranks' schedulers, and the step or run of steps under way.
#include <cstdint>
#include <span>
#include <vector>

#include "scheduler/scheduler.h"
#include "simulator/step_price.h"

namespace drydock::simulator {

// A run of `steps` equal batches; the state that the worker is in until end_us().
struct Run {
  double start_us = 0, drain_us = 0;
  StepLine line;
  int64_t steps = 1;
  double decodes = 0;  // sequences, over all ranks
  double tokens = 0;   // that each of the steps makes by decode: fewer where finished sequences linger

  double end_us() const { return start_us + line.total_us(steps); }
};

// Ranks step together, but one whose batch does not change is not looked at: it coasts, and its scheduler hears of all
// the steps at once when something changes in it.
class Worker {
 public:
  // Keeps a reference to `price`, which may be shared with other workers of one thread.
  Worker(const scheduler::Policy& policy, int ranks, int64_t kv_blocks, int64_t block_tokens, StepPrice& price);

  bool busy() const { return busy_; }
  const Run& run() const { return run_; }
  int ranks() const { return static_cast<int>(ranks_.size()); }
  // To change: its batch is made anew after the step under way.
  scheduler::Scheduler& rank(int r) {
    parts_[static_cast<size_t>(r)].touched = true;
    return ranks_[static_cast<size_t>(r)];
  }
  const scheduler::Scheduler& rank(int r) const { return ranks_[static_cast<size_t>(r)]; }
  // Whose batches start() made: the others go on with theirs, which hold no prompts.
  std::span<const int> renewed() const { return renewed_; }
  const scheduler::Batch& batch(int r) const { return *parts_[static_cast<size_t>(r)].batch; }
  double factor = 1;  // of all its times: above 1 it is slow

  // Starts what there is to do at `now_us`; busy() tells. With `exact`, one step at a time. The batches of renewed()
  // ranks are valid until finish().
  void start(double now_us, bool exact);
  // Something new has come to `rank` at `now_us`: the run ends with the step under way if it would change the next
  // batch. True: end_us() is another.
  bool interrupt(int rank, double now_us);
  // The run ends with the step under way. True: end_us() is another.
  bool cut(double now_us);
  // Ends the run `steps` (at most run().steps) in and tells each rank's progress through `tell(rank, Progress)`, if
  // any.
  template <typename Tell>
  void finish(int64_t steps, const Tell& tell) {
    busy_ = false;
    steps_ += steps;
    for (size_t r = 0; r < parts_.size(); ++r) {
      Part& p = parts_[r];
      if (!p.open) continue;
      p.ran += steps;
      if (p.touched || balances_ || p.ran >= p.batch->repeats)
        tell(static_cast<int>(r), end_batch(r));
      else
        rank_steps_[r].advance(steps);
    }
  }
  // Every rank's scheduler hears of the steps that were over when the run under way began.
  void settle();
  // Whole steps that are over at `now_us`.
  int64_t steps_over(double now_us) const;

  // Of a prompt with these hashes, what the rank that has most of it would find in its prefix cache.
  int64_t cached_prefix_tokens(std::span<const uint64_t> hashes, int64_t prompt_tokens) const;
  double kv_share() const;  // of all blocks, held by requests
  int64_t waiting() const;
  int64_t running() const;
  scheduler::Counters counters() const;

 private:
  // A rank's batch, and how far it is.
  struct Part {
    const scheduler::Batch* batch = nullptr;
    int64_t ran = 0;       // steps that its scheduler has not heard of
    bool open = false;     // its scheduler waits to hear of steps
    bool touched = true;   // to be made anew
    bool retries = false;  // nothing runs, but might with the next step
    bool plain = true;     // decode only
  };

  const scheduler::Progress& end_batch(size_t rank);
  void renew(size_t rank, bool exact, bool admits);
  bool may_admit(int64_t& most);

  StepPrice* price_;
  std::vector<scheduler::Scheduler> ranks_;
  std::vector<Part> parts_;
  std::vector<RankStep> rank_steps_;
  std::vector<int> renewed_;
  double growth_;
  bool balances_;  // whether ranks wait for one another with their prompts: then none coasts
  bool busy_ = false;
  int64_t steps_ = 0;                              // that are over
  int64_t balance_from_ = 0, balance_waited_ = 0;  // Policy::balance_steps count from here; Policy::balance_wait so far
  Run run_;
};

}  // namespace drydock::simulator
