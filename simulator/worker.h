#pragma once
// One engine instance in simulated time: its ranks' schedulers, and the step or run of steps under way.
#include <cstdint>
#include <vector>

#include "scheduler/scheduler.h"
#include "simulator/step_price.h"

namespace drydock::simulator {

// What happened inside a worker when a run of steps ended; ids are those of `rank`'s scheduler.
struct RankProgress {
  int rank = 0;
  const scheduler::Progress* progress = nullptr;
};

// A run of `steps` equal batches; the state that the worker is in until end_us().
struct Run {
  double start_us = 0, drain_us = 0;
  StepLine line;
  int64_t steps = 1;
  double decodes = 0;  // sequences, over all ranks
  double tokens = 0;   // that each of the steps makes by decode: fewer where finished sequences linger

  double end_us() const { return start_us + line.total_us(steps); }
};

class Worker {
 public:
  // Keeps a reference to `price`, which may be shared with other workers of one thread.
  Worker(const scheduler::Policy& policy, int ranks, int64_t kv_blocks, int64_t block_tokens, StepPrice& price);

  bool busy() const { return busy_; }
  const Run& run() const { return run_; }
  int ranks() const { return static_cast<int>(ranks_.size()); }
  scheduler::Scheduler& rank(int r) { return ranks_[static_cast<size_t>(r)]; }
  const scheduler::Scheduler& rank(int r) const { return ranks_[static_cast<size_t>(r)]; }
  bool active(int r) const { return active_[static_cast<size_t>(r)]; }  // has a part in the run
  const scheduler::Batch& batch(int r) const { return *batches_[static_cast<size_t>(r)]; }
  double factor = 1;  // of all its times: above 1 it is slow

  // Starts what there is to do at `now_us`; busy() tells. With `exact`, one step at a time. batch(r) is valid until
  // finish().
  void start(double now_us, bool exact);
  // Something new has come to `rank` at `now_us`: the run ends with the step under way if it would change the next
  // batch. True: end_us() is another.
  bool interrupt(int rank, double now_us);
  // The run ends with the step under way. True: end_us() is another.
  bool cut(double now_us);
  // Ends the run `steps` (at most run().steps) in and tells each rank's progress through `tell(rank, Progress)`.
  template <typename Tell>
  void finish(int64_t steps, const Tell& tell) {
    busy_ = false;
    for (int r = 0; r < ranks(); ++r)
      if (active_[static_cast<size_t>(r)]) tell(r, rank(r).complete(steps));
  }
  // Whole steps that are over at `now_us`.
  int64_t steps_over(double now_us) const;

  double kv_share() const;  // of all blocks, held by requests
  int64_t waiting() const;
  int64_t running() const;
  scheduler::Counters counters() const;

 private:
  StepPrice* price_;
  std::vector<scheduler::Scheduler> ranks_;
  std::vector<const scheduler::Batch*> batches_;
  std::vector<StepWork> work_;
  std::vector<char> active_;
  bool busy_ = false;
  Run run_;
};

}  // namespace drydock::simulator
