#pragma once
// The deployment plan: what the search produces, the simulator replays, the generators print and the runtime executes.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/estimate.h"
#include "models/architecture.h"

namespace drydock::models {

enum class Backend : uint8_t { trtllm, vllm, sglang, drydock };  // drydock: the bundled runtime, on kernels/
inline constexpr int kBackends = 4;
inline constexpr int kEngines = 3;  // the first ones: others' engines, with shipped tables and a fitted calibration
std::string_view name(Backend backend);
std::optional<Backend> parse_backend(std::string_view text);

enum class Mode : uint8_t { agg, disagg };
std::string_view name(Mode mode);

enum class Role : uint8_t { worker, prefill, decode };  // worker: both phases
std::string_view name(Role role);

// How one engine instance is spread over GPUs. tp * attention_dp == moe_tp * ep for MoE models.
struct Parallelism {
  int tp = 1;            // of attention and dense layers
  int pp = 1;            // pipeline stages
  int attention_dp = 1;  // replicas of attention inside the instance, each with its own requests
  int moe_tp = 1;        // of each expert
  int ep = 1;            // ranks over which experts are spread

  int gpus() const { return tp * pp * attention_dp; }
  auto operator<=>(const Parallelism&) const = default;
};

// Why a backend has no way to run such a parallelism on nodes of so many GPUs, whatever the model; one line, nullopt
// when it has. What it allows, generators/ can write.
std::optional<std::string> why_not_on(Backend backend, const Parallelism& parallelism, int gpus_per_node);

// For what prompts that could start are kept waiting; scheduler/scheduler.h says by which engine's switches.
struct PromptWaits {
  int64_t steps = 0;  // for others to come, so many steps beside decode,
  double share = 1;   // or until the step has this share of max_tokens
  int64_t poll = 1;   // steps of decode from one look at new requests to the next
  int64_t balance = 0,
          balance_batching = 0;  // for every attention-DP rank to have one, at most so many steps; and more

  auto operator<=>(const PromptWaits&) const = default;
};

// A pool of equal engine instances.
struct Pool {
  Role role = Role::worker;
  std::string system;
  Parallelism parallelism;
  int replicas = 1;
  int64_t max_batch = 0;   // sequences running at once in one instance, over all its attention-DP ranks
  int64_t max_tokens = 0;  // tokens of one step of one attention-DP rank
  int64_t kv_blocks = 0;   // of one attention-DP rank, kKvBlockTokens tokens each
  // Expert communication of one half-batch beside the compute of the other; the shared expert beside the routed ones.
  bool two_batch_overlap = false, shared_expert_overlap = false;
  PromptWaits waits{};

  int gpus() const { return replicas * parallelism.gpus(); }
};
inline constexpr int64_t kKvBlockTokens = 32;

// How tokens meet the experts of a mixture, in pools with expert parallelism; without skew or histogram: evenly.
struct Experts {
  std::optional<double> skew;  // exponent of a power law over the experts' ranks, 0 to 10
  std::string histogram;       // or a file with measured counts, as scheduler/expert_placement.h reads it
  int slots = 0;               // replicas included, over all GPUs of an instance, placed by EPLB; 0: contiguous, none

  bool uneven() const { return skew || !histogram.empty(); }
};
inline constexpr int kMostExpertSlots = 1 << 16;

// What is asked of the deployment. Exactly one of rate and concurrency is set, or neither ("as much as it can").
struct Workload {
  int64_t isl = 0, osl = 0;  // tokens
  // Lengths are uniform in [shortest, longest] x nominal; equal lengths would march in step, as no users do.
  double shortest = 0.9, longest = 1.1;
  int64_t stream_interval = 1;        // tokens the server gathers before it sends them on
  double prefix_hit = 0;              // share of the prompt found in the prefix cache, [0, 1)
  std::optional<double> rate;         // requests/s, Poisson
  std::optional<double> concurrency;  // requests in flight, closed loop
  // Of the client: who has none waits for one while its TTFT runs, as with aiohttp, which opens 100. 0: as many as
  // asked.
  int64_t connections = 0;
  // A closed loop's users all begin at once and stop after ten requests each, as benchmark clients do; false: the
  // steady state between.
  bool burst = false;
};

// Targets; unset: none.
struct Slo {
  std::optional<double> ttft_ms, tpot_ms, request_latency_ms;
  std::optional<double> percentile;  // of the requests that must be within the targets, 50 to 99.9; unset: the mean
};

// What the plan is predicted to do.
struct Prediction {
  core::Figure ttft_ms, tpot_ms, request_latency_ms;  // means
  struct Tail {
    double percentile = 95;
    core::Figure ttft_ms, tpot_ms, request_latency_ms;
  };
  std::optional<Tail> tail;                                  // where it was simulated for targets at a percentile
  core::Figure tokens_per_s_per_gpu, tokens_per_s_per_user;  // output tokens
  core::Figure requests_per_s;                               // of the whole plan
  std::optional<core::Figure> cost_per_million_tokens;       // in the unit of the price
  core::Figure gpu_hours_per_million_tokens;
};

struct Plan {
  std::string model;      // as the user typed it
  std::string precision;  // "fp8"
  std::string kv_precision = "auto";
  Backend backend = Backend::trtllm;
  std::string backend_version;  // of the tables behind the prediction; may be empty
  Mode mode = Mode::agg;
  std::vector<Pool> pools;  // agg: one worker pool; disagg: prefill, decode
  std::string router_policy = "least_outstanding_tokens";
  std::string speculative;  // as scheduler::parse_speculation reads it; empty: none
  Experts experts;
  Workload workload;
  Slo slo;
  std::optional<Prediction> prediction;

  int gpus() const;
  const Pool& pool(Role role) const;  // asserts that there is one
};

inline constexpr int kPlanVersion = 1;

// JSON with `"schema": "drydock.plan"`, `"version": 1`; see docs/schema/plan.schema.json.
std::string to_json(const Plan& plan);
// Throws core::Error naming `origin`, the field and what would be right.
Plan parse_plan(std::string_view json, std::string_view origin);
Plan read_plan(const std::filesystem::path& file);

}  // namespace drydock::models
