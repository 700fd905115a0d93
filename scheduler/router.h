#pragma once
// Which worker gets a request, and which attention-data-parallel rank within one.
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "core/random.h"

namespace drydock::scheduler {

enum class RouterPolicy : uint8_t {
  round_robin,
  least_outstanding_tokens,  // fewest tokens of requests in flight, prompts and generated
  power_of_two,              // of two workers drawn at random, the one with fewer outstanding tokens
  kv_aware,                  // Dynamo's cost: see RouterConfig
};
std::string_view name(RouterPolicy policy);
std::optional<RouterPolicy> parse_router_policy(std::string_view text);

// kv_aware gives the request to the worker of the lowest
//   prefill_load_scale x (active prefill + prompt - overlap) + (active decode + incoming) + request_weight x requests
// (Dynamo's KV router), where tokens are counted in blocks of `block_tokens`, not rounded; `overlap` is the part of the
// prompt that the worker has in its cache, `active decode` what its requests hold and `incoming` the whole prompt.
struct RouterConfig {
  RouterPolicy policy = RouterPolicy::least_outstanding_tokens;
  double prefill_load_scale = 1;
  double request_weight = 0;  // blocks an active request counts for, beside its tokens
  double temperature = 0;     // blocks; > 0: sample with probability proportional to exp(-cost / temperature)
  int64_t block_tokens = 16;
  uint64_t seed = 0;  // of power_of_two and temperature
};

// What the router knows of one worker.
struct WorkerLoad {
  int64_t prefill_tokens = 0;  // prompt tokens still to be computed
  int64_t context_tokens = 0;  // prompts and generated tokens of all requests in flight
  int64_t requests = 0;
  bool alive = true, draining = false, removed = false;
  double inhibited_until_us = 0;
};

// Dynamo keeps a worker that broke a stream out of routing for this long.
inline constexpr double kInhibitUs = 5e6;

// Keeps its own counts of what it sent where, so that a decision costs no question to the workers. A worker's index is
// never used again. Every function that takes an index throws core::Error when there is no such worker.
class Router {
 public:
  // Throws core::Error when a weight, the temperature or block_tokens is out of range, or `workers` is negative.
  Router(const RouterConfig& config, int workers);

  // The worker for a prompt of `prompt_tokens`, or -1 when every worker is dead, draining, inhibited or removed.
  // `overlap_tokens`: prompt tokens each worker has cached, by index; missing entries are 0, and so is the rest when it
  // is shorter. Of equal workers the lowest index wins. Counts do not change until `started`. O(workers), allocates
  // nothing.
  int route(int64_t prompt_tokens, std::span<const int64_t> overlap_tokens, double now_us);

  // A request of `prompt_tokens`, of which `cached_tokens` need no prefill, was handed to `worker`.
  void started(int worker, int64_t prompt_tokens, int64_t cached_tokens);
  // Its prefill is done: `prompt_tokens` and `cached_tokens` as given to `started`.
  void first_token(int worker, int64_t prompt_tokens, int64_t cached_tokens);
  // Requests of `worker` generated `tokens`, first tokens included.
  void progress(int worker, int64_t tokens);
  // A request whose first token was seen ended with `generated_tokens` reported through `progress`.
  void finished(int worker, int64_t prompt_tokens, int64_t generated_tokens);
  // A request that was started but had no first token ended: cancelled, failed or moved.
  void abandoned(int worker, int64_t prompt_tokens, int64_t cached_tokens);

  int add_worker();         // its index
  void drain(int worker);   // gets nothing new; its requests finish
  void remove(int worker);  // gone with its requests: its counts become 0
  void set_alive(int worker, bool alive);
  // Gets nothing before `until_us`; the later of two inhibitions holds.
  void inhibit(int worker, double until_us);

  // A draining worker without requests may be stopped.
  bool drained(int worker) const;
  int workers() const { return static_cast<int>(loads_.size()); }  // removed ones included
  const WorkerLoad& load(int worker) const;

 private:
  static bool allowed(const WorkerLoad& load, double now_us);
  WorkerLoad& at(int worker);
  int next_in_turn(double now_us);
  int better_of_two(double now_us);
  int cheapest(int64_t prompt_tokens, std::span<const int64_t> overlap_tokens, double now_us);
  double cost(const WorkerLoad& load, int64_t prompt_tokens, int64_t overlap_tokens) const;

  RouterConfig config_;
  std::vector<WorkerLoad> loads_;
  size_t turn_ = 0;
  core::Random random_;
};

// A request in flight on a worker.
struct InFlight {
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;  // streamed so far
  int64_t output_tokens_left = 0;
  int migrations = 0;
};

// How often a request may move to another worker after its own failed (Dynamo's migration limit).
struct Migration {
  int limit = 0;
};

// The request to replay elsewhere: what was generated becomes part of the prompt, so the client sees one stream.
// nullopt: the limit is reached or nothing is left to generate.
std::optional<InFlight> migrate(const Migration& migration, const InFlight& request);

// The attention-data-parallel rank to place a request on: fewest tokens, then fewest sequences, then the lowest index.
// Ranks that hold `max_sequences` are passed over; -1 when all do. Both spans have one entry a rank.
int least_loaded_rank(std::span<const int64_t> rank_tokens, std::span<const int64_t> rank_sequences,
                      int64_t max_sequences = INT64_MAX);

// (max - mean) / mean of non-negative loads; 0 when there are none or all are 0. A step that waits for its busiest rank
// takes 1 + imbalance times as long as a balanced one.
double imbalance(std::span<const int64_t> loads);

}  // namespace drydock::scheduler
