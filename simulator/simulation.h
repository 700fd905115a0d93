#pragma once
// A plan's engines put into a cluster, served a load, and what came of it as figures.
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "simulator/cluster.h"
#include "simulator/metrics.h"
#include "simulator/serving.h"

namespace drydock::simulator {

// A pool of equal instances of one engine.
struct Part {
  const Engine* engine = nullptr;
  models::Role role{};
  int replicas = 1;
  int64_t max_batch = 1;  // sequences in one instance, over its attention-DP ranks
  bool has_room = false;  // is known to hold that batch, whatever the memory model thinks
};

struct Deployment {
  std::vector<Part> parts;   // worker, or prefill and decode
  core::Figure transfer_ms;  // of a prompt of the workload's length; prefill and decode apart
  scheduler::RouterConfig router;
};

// The rest of a simulation, for those who want more than a workload's defaults.
struct Scenario {
  std::vector<Failure> failures;
  double detection_us = 1e6;
  int migration_limit = 3;
  int64_t local_prefill_tokens = 0;
  bool exact = false;
  int64_t hash_tokens = 0;  // of the load's hashes; > 0: prefix caches are on, and KV blocks are of this size
  double most_us = kNever;
  double look_us = 0;                     // > 0: so often the recorder looks whether the targets are still in reach
  int64_t steady_after = 0;               // answers after which throughput is counted
  std::function<void(Cluster&)> prepare;  // called before the first request: to set timelines and autoscaling up
};

struct Simulated {
  Distribution ttft_ms, tpot_ms, latency_ms, queue_ms, itl_ms;
  double requests_per_s = 0, output_tokens_per_s = 0;  // while all users were there, of the whole deployment
  double goodput_per_s = 0;                            // requests that met the targets
  double good_share = 0;
  double running = 0;      // sequences decoding, averaged over the time that decode workers are busy
  double hit_rate = 0;     // prompt tokens found in prefix caches
  bool saturated = false;  // requests came faster than they were served
  bool hopeless = false;   // stopped early: a target is missed whatever comes
  ClusterTotals totals;
};

// Requests of a workload's default load.
struct LoadOptions {
  uint64_t seed = 1;
  std::optional<int64_t> requests;  // that count; none given: see requests_of()
  std::optional<LengthDistribution> lengths;
  double burstiness = 1;
  double ramp_us = 0;    // over which a steady closed loop's users come in
  bool bands = true;     // false: figures without, which take less time
  bool gives_up = true;  // once targets at a percentile are certainly missed: the figures are then of what was seen
};
// In a burst 10 x concurrency, as the common clients send, and more where that is too few to tell a mean; else enough
// to tell a 95th percentile.
int64_t requests_of(const models::Workload& workload, const LoadOptions& options);
// Requests before those that count, while a deployment fills up.
int64_t filling_of(const models::Workload& workload, const LoadOptions& options);
LengthDistribution lengths_of(const models::Workload& workload);
// `gap_us`: of a closed loop's clients. Throws core::Error on a workload with neither rate nor concurrency.
std::unique_ptr<Load> load_of(const models::Workload& workload, double gap_us, const LoadOptions& options);

// `workload` gives typical lengths, on which KV capacity per token depends with sliding windows and recurrent state.
ClusterSpec cluster_of(const Deployment& deployment, const models::Workload& workload, const Scenario& scenario,
                       std::vector<Engine::PriceLease>& leases);

// Serves the load; `recorder` keeps the requests.
Simulated simulate(const Deployment& deployment, const models::Workload& workload, const Scenario& scenario, Load& load,
                   Recorder& recorder);

// What a run's totals and requests come to, whoever served them; `open`: arrivals did not wait for answers. Without
// `running`, which only a simulation knows.
Simulated figures_of(const ClusterTotals& totals, const Recorder& recorder, bool open);
// Every request that counted, as its user felt it [ms], in the order of their ends.
struct UserTimes {
  std::vector<double> ttft_ms, tpot_ms, latency_ms;
};

// What a recommendation judges: the workload's default load. A pool of equal workers is simulated as one of them with
// its share of the requests. nullopt: the deployment can't serve the rate. Where they are given: `times` is filled, and
// `first_tokens_late` set when the simulation was given up because of them.
std::optional<Served> serve(const Deployment& deployment, const models::Workload& workload, const Targets& targets,
                            const LoadOptions& options = {}, UserTimes* times = nullptr,
                            bool* first_tokens_late = nullptr);

}  // namespace drydock::simulator
