#pragma once
// How many workers a deployment should have: a fixed number, as Kubernetes' autoscaler, or as Dynamo's planner decides.
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "scheduler/forecast.h"

namespace drydock::scheduler {

enum class ScalingKind : uint8_t { fixed, hpa, planner };
std::string_view name(ScalingKind kind);
std::optional<ScalingKind> parse_scaling_kind(std::string_view text);

struct PoolLimits {
  int initial = 1, min = 1, max = 1;  // min <= initial <= max
};

// Kubernetes' HorizontalPodAutoscaler on the ratio of queue to compute time of a pool, with the defaults of
// autoscaling/v2: scale up at most to twice or by 4 workers an interval, scale down to the highest recommendation of
// the stabilization window (kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale, "Algorithm details").
struct HpaPolicy {
  double target = 1, tolerance = 0.1;
  double interval_s = 15, stabilization_s = 300;
};

// Dynamo's planner: a throughput loop that forecasts and a load loop of one worker more or less.
struct PlannerPolicy {
  double adjustment_interval_s = 180, load_interval_s = 5;
  ForecastKind forecast = ForecastKind::kalman;
  // Share of an engine's rate that is planned with. The rest is for queueing: waiting grows as u / (1 - u) with the
  // utilization u of a single-server queue.
  double utilization = 0.8;
  double scale_up_ratio = 1, scale_down_ratio = 0.1;  // queue time / compute time of the load loop
};

struct ScalingPolicy {
  ScalingKind kind = ScalingKind::fixed;
  bool disaggregated = false;  // false: there is only the pool `decode`, of workers that do both phases
  PoolLimits prefill, decode;
  HpaPolicy hpa;
  PlannerPolicy planner;
};

// Reads {"policy": "fixed" | "hpa" | "planner", "prefill": {"initial", "min", "max"}, "decode": {...}} and, for the
// kind it is, an object "hpa" or "planner" with the fields of the structs above; without "prefill" the deployment is
// aggregated. `decode` is required, `min` is 1 and `initial` is `min` unless given, `max` is `initial` unless given.
// A planner may go down to min 0. Throws core::Error naming `origin` and the field.
ScalingPolicy scaling_policy(const core::Json& json, const std::string& origin);
ScalingPolicy read_scaling_policy(const std::filesystem::path& file);

struct PoolObservation {
  int ready = 0;
  int starting = 0;  // asked for, not ready
  int stuck = 0;     // of these, starting for longer than they should: not counted on any more
  double queue_compute_ratio = 0, queued_requests = 0;  // of the ready ones, now
};

// What went on since the observation before. Lengths are means over requests, ignored when requests_per_s is 0.
struct Observation {
  double now_s = 0;
  double requests_per_s = 0, prompt_tokens = 0, output_tokens = 0;
  double prefix_hit = 0;  // share of prompt tokens found in the cache
  PoolObservation prefill, decode;
};

// Workers there should be, draining ones not counted. Fewer than there are means: drain the rest (workers_to_drain);
// no request is aborted by scaling down.
struct Decision {
  int prefill = 0, decode = 0;  // prefill is 0 when aggregated
  bool operator==(const Decision&) const = default;
};

struct RequestShape {
  double prompt_tokens = 0;
  double fresh_tokens = 0;  // prompt x (1 - prefix hit)
  double output_tokens = 0;
};

// Requests per second that one engine can serve; 0 when none. decode: at the largest batch that meets the ITL target;
// of an aggregated worker, both phases together. Only the planner asks.
struct EngineRates {
  std::function<double(const RequestShape&)> prefill_requests_per_s, decode_requests_per_s;
};

// The HPA's arithmetic: ceil(current x metric / target), `current` unchanged when metric / target is within `tolerance`
// of 1. Workers that are not ready count as idle when scaling up and not at all when scaling down, and never turn the
// direction; without a ready worker there is no metric and no change. As replica_calculator.go of Kubernetes.
int hpa_desired(int current, int ready, double metric, double target, double tolerance);

// ceil((requests_per_s + queued_requests / drain_s) / (engine_requests_per_s x utilization)): the planner's count with
// a term for the queue to be gone within `drain_s`. 0 without load; INT_MAX when the engine can serve none.
int workers_needed(double requests_per_s, double queued_requests, double drain_s, double engine_requests_per_s,
                   double utilization);

struct DrainCandidate {
  bool ready = false;
  int64_t outstanding_tokens = 0;
};

// Indices of the `surplus` workers to drain: those that are not ready yet, then those with the fewest outstanding
// tokens; of equal ones the last. All of them when surplus is larger.
std::vector<size_t> workers_to_drain(std::span<const DrainCandidate> workers, int surplus);

// What the planner does about the complaints of planners' users: no traffic scales to `min` at the next adjustment; the
// plan has headroom and a term for the queue; it never waits for a starting worker, and a stuck one is replaced while
// `max` allows. The load loop adds nothing while a worker that is not stuck is starting, as that would add one each 5 s
// until it is ready, and takes away nothing that the last plan needs.
class Autoscaler {
 public:
  // Throws core::Error when the policy's kind is planner and a rate it needs is missing.
  Autoscaler(const ScalingPolicy& policy, EngineRates rates);

  // To be called at times that do not decrease, at least as often as the shortest interval of the policy. Between
  // intervals the last decision stands, but for the replacement of stuck workers.
  Decision decide(const Observation& now);

 private:
  struct Pool {
    PoolLimits limits;
    int desired = 0, planned = 0;
    std::deque<std::pair<double, int>> recommendations = {};  // time [s], workers; the HPA's, within its window
  };
  void run_hpa(Pool& pool, const PoolObservation& seen, double now_s);
  void gather(const Observation& now);
  void adjust(const Observation& now);
  void apply_plan(Pool& pool, const PoolObservation& seen, int needed, bool idle);
  void follow_load(Pool& pool, const PoolObservation& seen);

  ScalingPolicy policy_;
  EngineRates rates_;
  Pool prefill_, decode_;
  std::unique_ptr<Forecaster> requests_per_s_, prompt_, fresh_, output_;
  bool started_ = false;
  double next_s_ = 0, next_adjustment_s_ = 0;
  double observations_ = 0, rate_sum_ = 0;  // since the last adjustment
  RequestShape tokens_per_s_sum_;           // each length x the rate it came with
};

}  // namespace drydock::scheduler
