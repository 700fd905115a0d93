#include <doctest/doctest.h>

#include "core/error.h"
#include "core/json.h"
#include "models/catalogue.h"
#include "simulator/autoscale.h"
#include "simulator/report.h"

using namespace drydock;
using namespace drydock::simulator;

namespace {

struct ScalingBed {
  models::Architecture architecture = models::find_model("meta-llama/Llama-3.1-70B");
  models::System system = models::find_system("h200_sxm");
  perfdb::KernelTimes times{system.hardware};
  BackendModel backend;
  Engine engine{architecture, models::choose_precision(architecture, "fp8"), {2, 1, 1, 1, 1}, system, times, backend,
                8192};
  models::Workload workload;
  Deployment deployment;

  ScalingBed() {
    workload.isl = 1000, workload.osl = 100;
    workload.rate = 20;
    deployment.parts.push_back({&engine, models::Role::worker, 1, 32});
  }

  // A rush from 2 to 60 requests/s and back again: half a day's curve.
  std::unique_ptr<Load> rush() const {
    OpenOptions open;
    open.rate.kind = RateProfile::Kind::diurnal;
    open.rate.per_s = 20;
    open.rate.amplitude = 0.95;
    open.rate.period_s = 600;
    open.duration_us = 900e6;
    open.lengths = lengths_of(workload);
    return make_open_load(open);
  }
};

scheduler::ScalingPolicy policy(const char* json) {
  return scheduler::scaling_policy(core::parse_json(json, "policy"), "policy.json");
}

struct Scaled {
  Outcome outcome;
  int64_t changes = 0;
  int most = 0;
};

Scaled run(const ScalingBed& bed, const scheduler::ScalingPolicy& policy) {
  const Deployment start = scaled_deployment(bed.deployment, policy, "policy.json");
  Scaler scaler({policy, {10e6}, 30.0, 0}, start, bed.workload);
  Watch watch;
  watch.recording.targets.ttft_ms = 2000;
  watch.prepare = [&](Cluster& cluster, const CountedLoad& load, const Recorder& requests) {
    scaler.attach(cluster, load, requests);
  };
  Scaled out;
  out.outcome = run_watched(start, bed.workload, {}, bed.rush(), watch);
  out.changes = scaler.changes();
  for (const auto& sample : out.outcome.timeline.samples())
    out.most = std::max(out.most, sample.pools[0].alive + sample.pools[0].starting);
  return out;
}

}  // namespace

TEST_CASE("an engine serves more when answers are shorter and less within a tighter target") {
  const ScalingBed bed;
  const auto rates = engine_rates(bed.deployment, std::nullopt);
  const double plain = rates.decode_requests_per_s({1000, 1000, 100});
  CHECK(plain > 0);
  CHECK(rates.decode_requests_per_s({1000, 1000, 50}) > plain);
  CHECK(rates.decode_requests_per_s({1000, 200, 100}) > plain);  // most of the prompt is in the cache
  CHECK(engine_rates(bed.deployment, 15.0).decode_requests_per_s({1000, 1000, 100}) < plain);
  CHECK(engine_rates(bed.deployment, 0.01).decode_requests_per_s({1000, 1000, 100}) == 0);
}

TEST_CASE("a policy must have the plan's pools") {
  const ScalingBed bed;
  const auto apart = policy(R"({"policy": "fixed", "prefill": {"initial": 1}, "decode": {"initial": 1}})");
  CHECK_THROWS_WITH_AS(scaled_deployment(bed.deployment, apart, "p.json"),
                       "p.json: field 'prefill': the plan has no prefill pool; want 'decode' only, for its workers",
                       core::Error);
  CHECK(scaled_deployment(bed.deployment, policy(R"({"policy": "fixed", "decode": {"initial": 3}})"), "p.json")
            .parts[0]
            .replicas == 3);
}

TEST_CASE(
    "a fixed policy changes nothing; the others follow a rush and serve more within the target than their least") {
  const ScalingBed bed;
  const Scaled fixed = run(bed, policy(R"({"policy": "fixed", "decode": {"initial": 1, "max": 8}})"));
  CHECK(fixed.changes == 0);
  CHECK(fixed.most == 1);
  for (const char* json :
       {R"({"policy": "hpa", "decode": {"initial": 1, "max": 8}, "hpa": {"target": 0.2, "stabilization_s": 60}})",
        R"({"policy": "planner", "decode": {"initial": 1, "max": 8}, "planner": {"adjustment_interval_s": 30}})"}) {
    const Scaled scaled = run(bed, policy(json));
    CAPTURE(json);
    CHECK(scaled.changes > 1);
    CHECK(scaled.most > 1);
    CHECK(scaled.most <= 8 + 8);  // draining ones beside those wanted
    CHECK(scaled.outcome.result.good_share > fixed.outcome.result.good_share);
    CHECK(scaled.outcome.requests->requests() == scaled.outcome.arrivals);  // none aborted by scaling down
    // Fewer GPU hours than the most workers all the time.
    CHECK(scaled.outcome.timeline.worker_us(0) < scaled.most * scaled.outcome.end_us);
  }
}
