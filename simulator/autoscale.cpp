#include "simulator/autoscale.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace drydock::simulator {
namespace {

using scheduler::PoolObservation;
using scheduler::RequestShape;

models::Workload workload_of(const RequestShape& shape) {
  models::Workload w;
  w.isl = std::max<int64_t>(1, std::llround(shape.prompt_tokens));
  w.osl = std::max<int64_t>(1, std::llround(shape.output_tokens));
  if (shape.prompt_tokens > 0) w.prefix_hit = std::clamp(1 - shape.fresh_tokens / shape.prompt_tokens, 0.0, 0.999999);
  return w;
}

struct Speed {
  double tpot_ms = 0, requests_per_s = 0;
};

// The largest batch within the target is the fastest: a larger one makes a token slower and more of them.
template <typename At>
double rate_within(int64_t most, std::optional<double> tpot_ms, const At& at) {
  if (!tpot_ms) return at(most).requests_per_s;
  int64_t low = 0, high = most;  // low is within
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (at(middle).tpot_ms <= *tpot_ms)
      low = middle;
    else
      high = middle - 1;
  }
  return low > 0 ? at(low).requests_per_s : 0;
}

double shortest_interval_us(const scheduler::ScalingPolicy& policy) {
  return 1e6 *
         (policy.kind == scheduler::ScalingKind::planner ? policy.planner.load_interval_s : policy.hpa.interval_s);
}

}  // namespace

scheduler::EngineRates engine_rates(const Deployment& deployment, std::optional<double> tpot_ms) {
  scheduler::EngineRates rates;
  const Part first = deployment.parts.front(), last = deployment.parts.back();
  rates.prefill_requests_per_s = [first](const RequestShape& shape) {
    return first.engine->prefill(workload_of(shape), first.max_batch).requests_per_s.value;
  };
  const bool apart = deployment.parts.size() > 1;
  rates.decode_requests_per_s = [last, apart, tpot_ms](const RequestShape& shape) {
    const models::Workload w = workload_of(shape);
    const int64_t most = std::max<int64_t>(1, last.engine->batch_limit(w, last.max_batch));
    return rate_within(most, tpot_ms, [&](int64_t batch) -> Speed {
      const auto n = static_cast<double>(batch);
      if (apart) {
        const Engine::Decode d = last.engine->decode(w, n);
        return {d.tpot_ms.value, d.requests_per_s.value};
      }
      const Engine::Agg a = last.engine->aggregated(w, n, batch);
      return {a.tpot_ms.value, a.requests_per_s.value};
    });
  };
  return rates;
}

Deployment scaled_deployment(const Deployment& deployment, const scheduler::ScalingPolicy& policy,
                             const std::string& origin) {
  Deployment out = deployment;
  if (policy.disaggregated != (out.parts.size() == 2))
    throw core::Error(origin + ": field 'prefill': " +
                      (policy.disaggregated ? "the plan has no prefill pool; want 'decode' only, for its workers"
                                            : "is missing; the plan has prefill and decode pools"));
  if (policy.disaggregated) out.parts.front().replicas = policy.prefill.initial;
  out.parts.back().replicas = policy.decode.initial;
  return out;
}

Scaler::Scaler(const Autoscaling& scaling, const Deployment& deployment, const models::Workload& workload)
    : scaling_(scaling),
      autoscaler_(scaling.policy, engine_rates(deployment, scaling.tpot_ms)),
      pools_(static_cast<int>(deployment.parts.size())),
      typical_output_(static_cast<double>(workload.osl) * (workload.shortest + workload.longest) / 2),
      cached_share_(workload.prefix_hit) {
  for (const Part& part : deployment.parts) workers_.push_back(part.replicas);
}

void Scaler::attach(Cluster& cluster, const CountedLoad& load, const Recorder& requests) {
  cluster_ = &cluster;
  load_ = &load;
  requests_ = &requests;
  look(0);
  cluster.every(scaling_.observe_us > 0 ? scaling_.observe_us : shortest_interval_us(scaling_.policy),
                [this](double now_us) { look(now_us); });
}

PoolObservation Scaler::observe(int pool, int64_t homeless) const {
  const PoolState s = cluster_->state(pool);
  PoolObservation out;
  out.ready = s.alive;
  out.starting = s.starting;
  const auto waiting = static_cast<double>(s.waiting + (s.alive == 0 ? homeless : 0));
  out.queued_requests = waiting;
  out.queue_compute_ratio = s.alive == 0 ? 0 : waiting / static_cast<double>(std::max<int64_t>(1, s.running));
  return out;
}

void Scaler::look(double now_us) {
  scheduler::Observation seen;
  seen.now_s = now_us * 1e-6;
  const double passed_s = (now_us - last_us_) * 1e-6;
  const int64_t arrived = load_->taken() - taken_, answered = requests_->requests() - answered_;
  if (passed_s > 0 && arrived > 0) {
    seen.requests_per_s = static_cast<double>(arrived) / passed_s;
    seen.prompt_tokens = (load_->prompt_tokens() - prompt_tokens_) / static_cast<double>(arrived);
  }
  // How long answers become is known when they end.
  if (answered > 0) typical_output_ = (requests_->output_tokens() - output_tokens_) / static_cast<double>(answered);
  seen.output_tokens = typical_output_;
  seen.prefix_hit = cached_share_;
  int64_t homeless = load_->in_flight();
  for (int p = 0; p < pools_; ++p) {
    const PoolState s = cluster_->state(p);
    homeless -= s.waiting + s.running;
  }
  homeless = std::max<int64_t>(0, homeless);
  if (pools_ > 1) seen.prefill = observe(0, homeless);
  seen.decode = observe(pools_ - 1, homeless);
  const scheduler::Decision decision = autoscaler_.decide(seen);
  if (pools_ > 1) set(0, decision.prefill);
  set(pools_ - 1, decision.decode);
  last_us_ = now_us;
  taken_ = load_->taken();
  answered_ = requests_->requests();
  prompt_tokens_ = load_->prompt_tokens();
  output_tokens_ = requests_->output_tokens();
}

void Scaler::set(int pool, int workers) {
  int& now = workers_[static_cast<size_t>(pool)];
  if (workers == now) return;
  now = workers;
  ++changes_;
  cluster_->scale(pool, workers, scaling_.start_up_us[static_cast<size_t>(pool)]);
}

}  // namespace drydock::simulator
