#pragma once
// An autoscaler at work in a simulated cluster.
#include <memory>
#include <optional>
#include <string>

#include "scheduler/autoscaler.h"
#include "simulator/counted_load.h"
#include "simulator/simulation.h"

namespace drydock::simulator {

struct Autoscaling {
  scheduler::ScalingPolicy policy;
  std::vector<double> start_up_us;  // per pool: from the decision until a worker serves
  std::optional<double> tpot_ms;    // at which the planner takes an engine to be full
  double observe_us = 0;            // between two looks; 0: the policy's shortest interval
};

// Requests per second of one engine of each pool, by the closed forms: at the largest batch within `tpot_ms`.
scheduler::EngineRates engine_rates(const Deployment& deployment, std::optional<double> tpot_ms);

// The deployment as the policy starts it. Throws core::Error naming `origin` when the policy has other pools.
Deployment scaled_deployment(const Deployment& deployment, const scheduler::ScalingPolicy& policy,
                             const std::string& origin);

// Looks at the cluster in intervals and scales its pools; lives as long as the run. The ratio of queue to compute time
// is that of waiting to running requests, which is the same by Little's law.
class Scaler {
 public:
  Scaler(const Autoscaling& scaling, const Deployment& deployment, const models::Workload& workload);
  // For RunObserver's run: the arguments of Watch::prepare.
  void attach(Cluster& cluster, const CountedLoad& load, const Recorder& requests);
  int64_t changes() const { return changes_; }

 private:
  void look(double now_us);
  scheduler::PoolObservation observe(int pool, int64_t homeless) const;
  void set(int pool, int workers);

  Autoscaling scaling_;
  scheduler::Autoscaler autoscaler_;
  int pools_;
  Cluster* cluster_ = nullptr;
  const CountedLoad* load_ = nullptr;
  const Recorder* requests_ = nullptr;
  double last_us_ = 0, prompt_tokens_ = 0, output_tokens_ = 0, typical_output_;
  int64_t taken_ = 0, answered_ = 0, changes_ = 0;
  double cached_share_;
  std::vector<int> workers_;
};

}  // namespace drydock::simulator
