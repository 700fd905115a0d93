#pragma once
// What users of a deployment would feel: the interface the search asks, whatever answers behind it.
// Closed forms answer here, from step tables and a mean-field queue (step_table.h, closed_loop.h); simulation.h puts
// the same engines into the event simulator.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/estimate.h"
#include "models/lowering.h"
#include "models/plan.h"
#include "models/system.h"
#include "perfdb/kernel_times.h"
#include "scheduler/scheduler.h"
#include "simulator/engine_options.h"
#include "simulator/step_price.h"
#include "simulator/step_time.h"

namespace drydock::simulator {

// A share of a step in one kind of op, for "where does the time go".
struct OpShare {
  models::Module module{};
  core::OpKind kind{};
  core::Dtype dtype{};
  double us = 0;     // in a typical step of the phase
  double share = 0;  // of that step
  core::Provenance provenance{};
};

// One engine instance: a model on a parallelism, a system and a backend, with its limits. Built once, asked often.
// Keeps references to the arguments' objects. Safe to ask from many threads, one at a time inside.
class Engine {
 public:
  Engine(const models::Architecture& architecture, const models::Precision& precision,
         const models::Parallelism& parallelism, const models::System& system, const perfdb::KernelTimes& times,
         const BackendModel& backend, int64_t max_tokens, const EngineOptions& options = {});
  ~Engine();
  Engine(Engine&&) noexcept;

  // KV tokens one attention-DP rank has room for beside weights, activations and buffers; 0: does not fit.
  double kv_tokens() const;
  // Sequences that hold `tokens` of KV each and fit in one instance together, over its ranks; 0: none.
  int64_t sequences_that_fit(double tokens) const;
  const models::StageMemory& memory() const;  // of the fullest stage

  // Sequences of the workload that the backend would run at once if KV memory were the only limit.
  int64_t slots(const models::Workload& workload) const;

  // `max_batch`, or the slots where they are fewer. A plan that is known to run although the memory model has no room
  // for it (slots 0) keeps its own limit.
  int64_t batch_limit(const models::Workload& workload, int64_t max_batch) const;

  // Both phases in one instance: `concurrency` requests in flight, closed loop, 10 x concurrency requests in all.
  struct Agg {
    core::Figure ttft_ms, tpot_ms, requests_per_s;
    double running = 0;  // sequences in the batch on average
  };
  Agg aggregated(const models::Workload& workload, double concurrency, int64_t max_batch) const;

  // The same under Poisson arrivals of `rate` requests/s; nullopt: more than the instance can do.
  std::optional<Agg> open_loop(const models::Workload& workload, double rate, int64_t max_batch) const;

  // Prompts only, `batch` at a time: time of one batch and the rate of an instance that is never idle.
  struct Prefill {
    core::Figure batch_ms, requests_per_s;
  };
  Prefill prefill(const models::Workload& workload, int64_t batch) const;

  // Output tokens only, `batch` sequences running in the instance.
  struct Decode {
    core::Figure tpot_ms, requests_per_s;
  };
  Decode decode(const models::Workload& workload, double batch) const;

  // TTFT outside the engine with so many requests in flight: HTTP, tokenizer, first detokenized chunk.
  double outside_ms(double in_flight) const;

  // Step prices for the event simulator. Tables filled by one simulation serve the next; each is used by one at a time.
  class PriceLease {
   public:
    PriceLease(const Engine& engine, std::unique_ptr<TablePrice> price) : engine_(&engine), price_(std::move(price)) {}
    ~PriceLease();
    PriceLease(PriceLease&&) noexcept = default;
    TablePrice& price() const { return *price_; }

   private:
    const Engine* engine_;
    std::unique_ptr<TablePrice> price_;
  };
  PriceLease lease_price() const;
  // The figures of the BackendModel it was made with have changed; no lease is out.
  void reprice();

  // What no schedule can beat: requests/s of one instance with at most `max_batch` sequences and `users` in a closed
  // loop (0: open), each request of the workload's mean lengths; the shortest TPOT and TTFT. From the steps that the
  // work needs at least: see docs/search.md.
  struct Bound {
    double requests_per_s = 0, tpot_ms = 0, ttft_ms = 0;
  };
  Bound bound(const models::Workload& workload, models::Role role, int64_t max_batch, double users) const;

  // The backend's rules for steps of at most `max_batch` sequences over all ranks, as one rank's scheduler has them.
  scheduler::Policy policy(int64_t max_batch) const;
  // KV blocks of one rank when sequences hold `context` tokens on average; with sliding windows and recurrent state a
  // token of a longer sequence takes less. Where the memory model has no room for a plan that is known to run, enough
  // for `known_to_run` tokens.
  int64_t kv_blocks(double context, int64_t block_tokens, double known_to_run) const;
  int ranks() const;
  const EngineOptions& options() const;
  const BackendModel& backend() const;
  // Half-width of the 80 % band of ln(time) from kernel times alone, of a decode step of `batch` and of a prompt.
  double decode_spread(const models::Workload& workload, double batch) const;
  double prefill_spread(const models::Workload& workload) const;

  // Ops of a decode step (or of a prefill step) of `batch` sequences, largest first.
  std::vector<OpShare> breakdown(const models::Workload& workload, models::Role phase, double batch) const;
  // Share of that step's time that rests on each provenance.
  std::array<double, core::kProvenances> provenance(const models::Workload& workload, models::Role phase,
                                                    double batch) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Time to move one prompt's KV cache from a prefill to a decode instance [ms].
core::Figure kv_transfer_ms(const models::Architecture& architecture, const models::Precision& precision,
                            const models::Parallelism& prefill, const models::Parallelism& decode,
                            const models::System& from, const models::System& to, double tokens);

// What a whole plan does, all replicas together.
struct Served {
  core::Figure ttft_ms, tpot_ms, requests_per_s;  // means
  double in_flight = 0;                           // requests, waiting or running
  // What so large a share of the requests stays within; from simulations only.
  struct Tail {
    double quantile = 0.95;
    core::Figure ttft_ms, tpot_ms, request_latency_ms;
    bool hopeless = false;  // the simulation ended early: some target is missed, and the figures are of what was seen
  };
  std::optional<Tail> tail;
  double outside_users = 0;  // requests in flight that TTFT's outside_ms() was asked for; from simulations only
  double good_share = 1;     // of requests that meet all targets; from simulations only
};

// Prefill and decode pools joined: rates matched, queueing before prefill in TTFT, and in a closed loop that before
// decode. The workload's concurrency is over the whole plan; with neither rate nor concurrency, as many requests as
// decode has slots. nullopt: the rate is more than a pool can do.
std::optional<Served> disaggregated(const Engine& prefill, int prefill_replicas, int64_t prefill_batch,
                                    const Engine& decode, int decode_replicas, int64_t decode_batch,
                                    const core::Figure& transfer_ms, const models::Workload& workload);

// An aggregated pool of `replicas` instances behind a router, at the workload's rate or concurrency; with neither, at
// `max_batch` requests in flight per instance. nullopt: the rate is more than the pool can do.
std::optional<Served> aggregated(const Engine& worker, int replicas, int64_t max_batch,
                                 const models::Workload& workload);

}  // namespace drydock::simulator
