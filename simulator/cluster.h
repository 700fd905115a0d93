#pragma once
// A deployment in simulated time: pools of workers behind a router, requests from a load, KV on its way between pools,
// workers that die and come back. One thread, deterministic.
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "scheduler/router.h"
#include "simulator/arrivals.h"
#include "simulator/worker.h"

namespace drydock::simulator {

enum class Stage : uint8_t { whole, prefill, decode };  // what a pool does of a request

struct PoolSpec {
  Stage stage = Stage::whole;
  int replicas = 1;
  int ranks = 1;  // attention-DP ranks of an instance
  scheduler::Policy policy;
  int64_t kv_blocks = 1, block_tokens = 32;  // of a rank
  StepPrice* price = nullptr;                // of all its workers
};

// KV on its way from a prefill to a decode worker. Each has one link, on which transfers take turns.
struct TransferSpec {
  double fixed_us = 0;      // handshake
  double us_per_token = 0;  // on the wire
  double us_per_block = 0;  // of descriptors
  double overlap = 0;       // share of the wire time that passes while the prompt is still computed, layer by layer
};

struct Failure {
  enum class Kind : uint8_t { dies, slows };
  Kind kind = Kind::dies;
  int pool = 0, worker = 0;
  double at_us = 0;
  double restart_us = kNever;  // dies: from then until it serves again; slows: until it is as before
  double slowdown = 1;         // slows: factor on its times
};

struct ClusterSpec {
  std::vector<PoolSpec> pools;  // one whole pool, or prefill and decode
  scheduler::RouterConfig router;
  TransferSpec transfer;
  int64_t local_prefill_tokens = 0;  // shorter prompts are computed by the decode pool itself
  std::vector<Failure> failures;
  double detection_us = 1e6;  // from a death to its being noticed
  int migration_limit = 3;
  bool exact = false;        // every step by itself
  int64_t steady_after = 0;  // answers after which totals.steady_us begins
};

// One request that is over.
struct RequestRecord {
  double arrival_us = 0, started_us = 0, first_us = 0, last_us = 0;
  int64_t prompt_tokens = 0, output_tokens = 0, cached_tokens = 0;
  int32_t worker = 0;      // that gave the last token
  int32_t migrations = 0;  // to another worker after a failure
  bool warmup = false, lost = false, rejected = false;
};

// What is told while it happens; all with times in order, but for records of requests that wait on a pipeline to drain.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void done(const RequestRecord& record) = 0;
  // `worker` ran `run`: of pool `pool`, with so many prompt tokens in its one step, or none.
  virtual void ran(int pool, int worker, const Run& run, int64_t prompt_tokens) {
    (void)pool, (void)worker, (void)run, (void)prompt_tokens;
  }
  // A pause that decoding sequences of a worker had before `run`'s first token.
  virtual void token_gap(double us, double tokens) { (void)us, (void)tokens; }
  virtual bool enough() { return false; }  // asked after every request: the rest need not be simulated
};

// State of a pool now, for timelines and autoscaling.
struct PoolState {
  int alive = 0, starting = 0;
  int64_t waiting = 0, running = 0;
  double kv_share = 0;
};

struct ClusterTotals {
  double end_us = 0;                       // last event
  std::vector<double> busy_us;             // per pool, over its workers
  std::vector<double> worker_us;           // per pool: time that workers were there
  std::vector<double> decode_sequence_us;  // per pool: integral of decoding sequences over busy time
  scheduler::Counters counters;
  int64_t events = 0, steps = 0, rejected = 0, lost = 0, migrations = 0, replayed_tokens = 0, unfinished = 0;
  double waiting_at_last_arrival = 0;                      // requests in flight then
  double last_arrival_us = 0, tokens_at_last_arrival = 0;  // output tokens that clients had by then
  double steady_us = 0, tokens_at_steady = 0;              // the same after ClusterSpec::steady_after answers
};

class Cluster {
 public:
  explicit Cluster(ClusterSpec spec);
  ~Cluster();
  Cluster(const Cluster&) = delete;

  // Serves `load` to its end, or until the observer has enough or `most_us` is reached.
  ClusterTotals run(Load& load, Observer& observer, double most_us = kNever);

  // While it runs: from Observer calls and from `every`.
  double now_us() const;
  PoolState state(int pool) const;
  // Calls `hook` every `interval_us` of simulated time while requests are in flight or to come.
  void every(double interval_us, std::function<void(double now_us)> hook);
  // Requests in flight, as far as they are: first_us < 0 without a first token.
  void visit(const std::function<void(const RequestRecord&)>& look) const;
  void stop();  // after what is under way: the observer has enough
  // Changes the number of workers of a pool: new ones serve `start_up_us` from now, surplus ones drain.
  void scale(int pool, int workers, double start_up_us);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace drydock::simulator
