#pragma once
// What a Cluster keeps; shared by the files that implement it.
#include <cmath>
#include <functional>
#include <memory>
#include <queue>
#include <vector>

#include "simulator/cluster.h"

namespace drydock::simulator {

// A worker and who is on it.
struct Member {
  Worker worker;
  std::vector<std::vector<int>> owners;  // [rank][id of its scheduler]: which request
  uint32_t version = 0;                  // of the run under way
  int lent = 0;                          // prompts whose KV another worker is to fetch
  bool ending = false;                   // its run's results are being told: nothing may start
  bool alive = true, draining = false;
  double last_decode_us = 0;
  int64_t prompt_tokens = 0;  // of the run under way
  double since_us = 0, until_us = kNever;
  double link_free_us = 0;
  uint32_t life = 0;  // how often it has died
  bool retired = false, returns = false;
};

struct PoolRun {
  PoolRun(const PoolSpec& pool, const scheduler::RouterConfig& config);
  int add(double now_us);  // its index

  PoolSpec spec;
  scheduler::Router router;
  std::vector<std::unique_ptr<Member>> members;
  std::vector<int> homeless;  // requests that no worker could take
};

// A request in flight.
struct Live {
  RequestRecord record;
  std::vector<uint64_t> hashes;
  int64_t tag = 0, prompt = 0, left = 0;  // prompt and output as the worker sees them: after a migration they shift
  int64_t cached = 0;                     // prompt tokens that its worker need not compute, as the router was told
  int priority = 0;
  int pool = -1, worker = -1, rank = 0;
  scheduler::RequestId id = -1;
  int source_worker = -1, source_rank = 0;  // who holds its KV until a decode worker has it
  scheduler::RequestId source_id = -1;
  uint32_t source_life = 0;
  uint32_t version = 0;  // changes when it is moved
  bool local = false;    // prefill and decode on one worker
  bool routed = false, prefilled = false;

  void reset() {
    const uint32_t next = version + 1;
    auto kept = std::move(hashes);
    *this = {};
    hashes = std::move(kept);
    version = next;
  }
};

struct Cluster::Impl {
  struct Event {
    enum class Kind : uint8_t { run_end, kv_here, handed, failure, noticed, restart, recovers, hook };
    double at_us;
    uint64_t sequence;
    Kind kind;
    int pool, index;
    uint32_t version;
    bool operator<(const Event& o) const { return at_us != o.at_us ? at_us > o.at_us : sequence > o.sequence; }
  };
  struct Hook {
    double interval_us;
    std::function<void(double)> call;
  };

  explicit Impl(ClusterSpec given);
  void push(double at_us, Event::Kind kind, int pool, int index, uint32_t version = 0);
  bool step(double most_us);
  void call_hook(int index);
  double tokens_so_far() const;
  void note_last_arrival();
  bool is_stale(const Event& e) const;
  void handle(const Event& e);

  int new_live();
  void close(int index);
  void arrive(const Arrival& a);
  void dispatch(int index);
  int choose(PoolRun& pool, const Live& l);
  int64_t cached_on(const PoolRun& pool, const Live& l) const;
  void send(int index, int pool);
  scheduler::Request request_of(const Live& l, const PoolRun& pool) const;
  void submit(int index, Member& m);
  void unroute(Live& l);
  void wake(int pool, int worker, int rank);
  void start(int pool, int worker);
  void pull(int index);
  void kv_here(int index);
  void give_back_source(Live& l);
  void run_end(int pool, int worker);
  void end_run(int pool, int worker, int64_t steps, double prompts_us);
  void count(const scheduler::Counters& c);
  void account(int pool, int worker, const Run& run);
  void first_token(int index, double at_us);
  void last_token(int index, double prompts_us);
  void finish(int index, double at_us);
  void hand_over(int index);

  // Workers that come and go: cluster_failures.cpp
  void fail(const Failure& failure);
  void notice(int pool, int worker);
  void restart(int pool, int worker);
  void retire(PoolRun& pool, int worker);
  void retire_if_drained(int pool, int worker);
  void cut(int pool, int worker);
  void move_elsewhere(int index);
  void house(int pool);

  ClusterSpec spec;
  std::vector<std::unique_ptr<PoolRun>> pools;
  std::vector<Live> lives;
  std::vector<int> unused;
  std::priority_queue<Event> events;
  std::vector<Hook> hooks;
  uint64_t sequence = 0;
  double now = 0, output_tokens = 0;
  int64_t in_flight = 0, closed = 0;
  bool stopped = false;
  int idle_hooks = 0;  // in a row, with nothing else left to happen
  Load* load = nullptr;
  Observer* observer = nullptr;
  ClusterTotals totals;
  std::vector<int64_t> overlaps, tokens, sequences;
};

}  // namespace drydock::simulator
