#include <doctest/doctest.h>

#include <climits>
#include <cmath>
#include <string>

#include "core/error.h"
#include "core/file.h"
#include "scheduler/autoscaler.h"

using namespace drydock::scheduler;
using drydock::core::Error;

namespace {

ScalingPolicy policy_of(std::string_view text) {
  return scaling_policy(drydock::core::parse_json(text, "policy.json"), "policy.json");
}

std::string policy_error(std::string_view text) {
  try {
    policy_of(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// A prefill engine of 10000 fresh tokens/s and a decode engine of 1000 tokens/s.
EngineRates rates() {
  return {[](const RequestShape& shape) { return 10'000 / shape.fresh_tokens; },
          [](const RequestShape& shape) { return 1'000 / shape.output_tokens; }};
}

Observation observation(double now_s, double requests_per_s, Decision ready) {
  Observation out;
  out.now_s = now_s;
  out.requests_per_s = requests_per_s;
  out.prompt_tokens = 2000;
  out.output_tokens = 100;
  out.prefix_hit = 0.5;
  out.prefill.ready = ready.prefill;
  out.decode.ready = ready.decode;
  // Neither high nor low, so that the load loop rests.
  out.prefill.queue_compute_ratio = out.decode.queue_compute_ratio = 0.5;
  return out;
}

ScalingPolicy hpa_policy() { return policy_of(R"({"policy": "hpa", "decode": {"initial": 2, "min": 1, "max": 20}})"); }

ScalingPolicy planner_policy(std::string_view forecast, double utilization) {
  ScalingPolicy policy = policy_of(R"({"policy": "planner", "prefill": {"initial": 2, "min": 0, "max": 50},
                                       "decode": {"initial": 3, "min": 1, "max": 50}, "planner": {}})");
  policy.planner.forecast = *parse_forecast_kind(forecast);
  policy.planner.utilization = utilization;
  return policy;
}

// Feeds `per_s` of each load interval from `from_s` to the next adjustment at `to_s`; everything is ready at once.
Decision run(Autoscaler& scaler, Decision last, double from_s, double to_s, double per_s) {
  for (double now = from_s; now <= to_s; now += 5) last = scaler.decide(observation(now, per_s, last));
  return last;
}

}  // namespace

TEST_CASE("a fixed deployment stays as it is") {
  Autoscaler scaler(policy_of(R"({"policy": "fixed", "decode": {"initial": 3}, "prefill": {"initial": 2}})"), {});
  for (const double now : {0.0, 100.0, 1000.0}) CHECK(scaler.decide(observation(now, now, {2, 3})) == Decision{2, 3});
}

TEST_CASE("the HPA's arithmetic follows the Kubernetes documentation") {
  // "if the current metric value is 200m, and the desired value is 100m, the number of replicas will be doubled";
  // "if the current value is instead 50m, you will halve the number of replicas".
  CHECK(hpa_desired(4, 4, 0.2, 0.1, 0.1) == 8);
  CHECK(hpa_desired(4, 4, 0.05, 0.1, 0.1) == 2);
  CHECK(hpa_desired(3, 3, 0.05, 0.1, 0.1) == 2);  // ceil(1.5)
  // "skips any scaling action if the ratio is sufficiently close to 1.0 (within a configurable tolerance, 0.1 by
  // default)".
  CHECK(hpa_desired(10, 10, 1.09, 1, 0.1) == 10);
  CHECK(hpa_desired(10, 10, 0.91, 1, 0.1) == 10);
  CHECK(hpa_desired(10, 10, 1.11, 1, 0.1) == 12);  // ceil(11.1)
  CHECK(hpa_desired(10, 10, 0.89, 1, 0.1) == 9);
  CHECK(hpa_desired(5, 5, 0, 1, 0.1) == 0);  // the limits come after
}

TEST_CASE("workers that are not ready dampen the HPA and never turn it") {
  // Two of four are ready at three times the target: 3 x 2 / 4 = 1.5, ceil(1.5 x 4) = 6, not 12.
  CHECK(hpa_desired(4, 2, 3, 1, 0.1) == 6);
  // 1.5 x 2 / 4 = 0.75 would be a scale-down out of an overload, 2 x 2 / 4 = 1 is within tolerance: no change.
  CHECK(hpa_desired(4, 2, 1.5, 1, 0.1) == 4);
  CHECK(hpa_desired(4, 2, 2, 1, 0.1) == 4);
  // Scaling down they are not counted: ceil(0.5 x 2) = 1.
  CHECK(hpa_desired(4, 2, 0.5, 1, 0.1) == 1);
  CHECK(hpa_desired(4, 0, 99, 1, 0.1) == 4);
}

TEST_CASE("the HPA scales up at once by its steps and down after the stabilization window") {
  Autoscaler scaler(hpa_policy(), {});
  Decision now = {0, 2};
  const auto at = [&](double time_s, double ratio) {
    Observation seen = observation(time_s, 1, now);
    seen.decode.queue_compute_ratio = ratio;
    return now = scaler.decide(seen);
  };
  CHECK(at(0, 10).decode == 6);    // ceil(2 x 10) = 20, at most max(2 x 2, 2 + 4)
  CHECK(at(10, 10).decode == 6);   // between intervals
  CHECK(at(15, 10).decode == 12);  // at most 2 x 6
  CHECK(at(30, 10).decode == 20);  // max
  // Quiet from 45 s on: wants ceil(20 x 0.1) = 2, but the recommendations of 20 at 0 to 30 s count until they are more
  // than 300 s old.
  for (double time_s = 45; time_s <= 330; time_s += 15) CHECK(at(time_s, 0.1).decode == 20);
  CHECK(at(345, 0.1).decode == 2);
  CHECK(at(360, 0.1).decode == 2);  // the highest of the window is 2 still
  CHECK(at(645, 0.1).decode == 2);
  CHECK(at(1000, 0.1).decode == 1);  // ceil(2 x 0.1), and all others are over 300 s old
}

TEST_CASE("the planner's count has a queueing term and headroom") {
  CHECK(workers_needed(10, 0, 100, 5, 1) == 2);
  CHECK(workers_needed(10, 0, 100, 5, 0.8) == 3);       // 10 / 4
  CHECK(workers_needed(10, 300, 100, 5, 1) == 3);       // (10 + 3) / 5
  CHECK(workers_needed(0.3, 0, 100, 0.1, 1) == 3);      // 0.3 / 0.1 is 2.9999999999999996
  CHECK(workers_needed(0.6, 0, 100, 0.2, 1) == 3);      // 0.6 / 0.2 is 2.9999999999999996
  CHECK(workers_needed(0.7, 0, 100, 0.1, 1) == 7);      // 6.999999999999999
  CHECK(workers_needed(3 * 1.1, 0, 100, 1.1, 1) == 3);  // 3.0000000000000004
  CHECK(workers_needed(0, 0, 100, 5, 0.8) == 0);
  CHECK(workers_needed(0, 0, 100, 0, 0.8) == 0);
  CHECK(workers_needed(1, 0, 100, 0, 0.8) == INT_MAX);
  CHECK(workers_needed(1e300, 0, 100, 1e-300, 0.8) == INT_MAX);
}

TEST_CASE("the planner plans each pool for the rate of the last interval") {
  Autoscaler scaler(planner_policy("constant", 1), rates());
  // 42 requests/s: 42 x 2000 x (1 - 0.5) / 10000 = 4.2 -> 5 for prefill, 42 x 100 / 1000 = 4.2 -> 5 for decode.
  CHECK(run(scaler, {2, 3}, 0, 175, 42) == Decision{2, 3});  // before the first adjustment
  CHECK(run(scaler, {2, 3}, 180, 180, 42) == Decision{5, 5});
  CHECK(run(scaler, {5, 5}, 185, 360, 42) == Decision{5, 5});
  // With 0.8 of the rates: 5.25 -> 6.
  Autoscaler careful(planner_policy("constant", 0.8), rates());
  CHECK(run(careful, {2, 3}, 0, 180, 42) == Decision{6, 6});
  // A queue of 1800 adds 1800 / 180 = 10 requests/s, 52 x 0.1 = 5.2 -> 6; it is decode's only.
  Autoscaler queued(planner_policy("constant", 1), rates());
  run(queued, {2, 3}, 0, 175, 42);
  Observation seen = observation(180, 42, {2, 3});
  seen.decode.queued_requests = 1800;
  CHECK(queued.decide(seen) == Decision{5, 6});
}

TEST_CASE("the planner forecasts the rate") {
  // Interval means of 10, 20, 30, 40 requests/s: the trend says 50, whatever sees it. At 0.1 worker for each: 5, where
  // the constant forecast plans 4. The filter's diffuse start leaves 1 in 1e7, so it may be just above 5.
  for (const auto& [forecast, least, most] :
       {std::tuple("constant", 4, 4), std::tuple("arima", 5, 5), std::tuple("kalman", 5, 6)}) {
    Autoscaler scaler(planner_policy(forecast, 1), rates());
    Decision now = {2, 3};
    now = run(scaler, now, 0, 180, 10);
    for (const int interval : {1, 2, 3})
      now = run(scaler, now, interval * 180 + 5, (interval + 1) * 180, 10 * (interval + 1));
    INFO(forecast, ": ", now.decode);
    CHECK((now.decode >= least && now.decode <= most));
    CHECK((now.prefill >= least && now.prefill <= most));
  }
}

TEST_CASE("no traffic scales to the minimum at the next adjustment") {
  for (const char* forecast : {"constant", "arima", "kalman"}) {
    Autoscaler scaler(planner_policy(forecast, 1), rates());
    run(scaler, {2, 3}, 0, 180, 42);
    CHECK(run(scaler, {5, 5}, 185, 360, 0) == Decision{0, 1});
  }
}

TEST_CASE("a queue wakes a pool of no workers") {
  Autoscaler scaler(planner_policy("constant", 1), rates());
  run(scaler, {2, 3}, 0, 180, 0);
  Observation seen = observation(185, 1, {0, 1});
  seen.prefill.queue_compute_ratio = 0;
  seen.prefill.queued_requests = 1;
  CHECK(scaler.decide(seen) == Decision{1, 1});
  seen.now_s = 190;
  seen.prefill.starting = 1;
  CHECK(scaler.decide(seen) == Decision{1, 1});  // on its way
}

TEST_CASE("the load loop moves by one between adjustments, not below the plan") {
  Autoscaler scaler(planner_policy("constant", 1), rates());
  run(scaler, {2, 3}, 0, 180, 42);
  Observation seen = observation(185, 42, {5, 5});
  seen.decode.queue_compute_ratio = 2;
  CHECK(scaler.decide(seen) == Decision{5, 6});
  seen.now_s = 187;  // within the load interval
  CHECK(scaler.decide(seen) == Decision{5, 6});
  seen.now_s = 190;
  seen.decode.starting = 1;  // the sixth
  CHECK(scaler.decide(seen) == Decision{5, 6});
  seen.decode = {6, 0, 0, 2, 0};
  seen.now_s = 195;
  CHECK(scaler.decide(seen) == Decision{5, 7});
  seen.decode = {7, 0, 0, 0.01, 0};
  for (const int want : {6, 5, 5}) {
    seen.now_s += 5;
    CHECK(scaler.decide(seen) == Decision{5, want});
  }
}

TEST_CASE("a stuck worker is replaced and does not hold anything up") {
  Autoscaler scaler(planner_policy("constant", 1), rates());
  run(scaler, {2, 3}, 0, 180, 42);
  Observation seen = observation(185, 42, {5, 4});
  seen.decode.starting = seen.decode.stuck = 1;
  CHECK(scaler.decide(seen) == Decision{5, 6});  // five that work
  seen.now_s = 190;
  seen.decode.queue_compute_ratio = 2;  // and the load loop still adds
  CHECK(scaler.decide(seen) == Decision{5, 7});
  seen.decode.stuck = seen.decode.starting = 1000;
  CHECK(scaler.decide(seen) == Decision{5, 50});  // max
  // The plan does not wait for a starting worker either: 105 requests/s need 11 (10.5).
  for (double now = 195; now <= 355; now += 5) scaler.decide(observation(now, 105, {5, 5}));
  seen = observation(360, 105, {5, 5});
  seen.decode.starting = seen.prefill.starting = 1;
  const Decision planned = scaler.decide(seen);
  // The mean over 185 to 360 s holds three observations of 42: (33 x 105 + 105 + 3 x 42) / 37 = 99.9 -> 10.
  CHECK(planned == Decision{10, 10});
}

TEST_CASE("an overloaded pool keeps what the load loop gave it") {
  Autoscaler scaler(planner_policy("constant", 1), rates());
  for (double now = 0; now < 180; now += 5) {
    Observation seen = observation(now, 42, {2, 3});
    seen.decode.queue_compute_ratio = 2;
    scaler.decide(seen);
  }
  Observation seen = observation(180, 42, {2, 39});
  seen.decode.queue_compute_ratio = 2;
  CHECK(scaler.decide(seen) == Decision{5, 39});  // 3 + 36 steps of the load loop, where the plan is 5
  CHECK(run(scaler, {5, 39}, 185, 360, 42) == Decision{5, 5});
}

TEST_CASE("an aggregated deployment has decode workers only") {
  const ScalingPolicy policy = policy_of(R"({"policy": "planner", "decode": {"min": 1, "max": 9}})");
  EngineRates worker;
  worker.decode_requests_per_s = [](const RequestShape& shape) {
    CHECK(shape.prompt_tokens == 2000);
    CHECK(shape.fresh_tokens == 1000);
    return 10.0;
  };
  Autoscaler scaler(policy, worker);
  CHECK(run(scaler, {0, 1}, 0, 180, 42) == Decision{0, 6});  // 42 / (10 x 0.8)
  CHECK_THROWS_WITH(Autoscaler(policy, {}), "autoscaler: the planner needs the rate of an engine of each pool");
  CHECK_THROWS_AS(Autoscaler(planner_policy("arima", 1), worker), Error);
}

TEST_CASE("scaling down drains the workers that cost least") {
  const DrainCandidate workers[] = {{true, 50}, {false, 0}, {true, 10}, {true, 10}, {false, 0}, {true, 0}};
  CHECK(workers_to_drain(workers, 0).empty());
  CHECK(workers_to_drain(workers, -1).empty());
  CHECK(workers_to_drain(workers, 3) == std::vector<size_t>{4, 1, 5});
  CHECK(workers_to_drain(workers, 99) == std::vector<size_t>{4, 1, 5, 3, 2, 0});
}

TEST_CASE("a policy is read with its defaults") {
  const ScalingPolicy plain = policy_of(R"({"policy": "hpa", "decode": {}})");
  CHECK_FALSE(plain.disaggregated);
  CHECK(plain.decode.min == 1);
  CHECK(plain.decode.initial == 1);
  CHECK(plain.decode.max == 1);
  CHECK(plain.hpa.target == 1);
  CHECK(plain.hpa.stabilization_s == 300);
  const ScalingPolicy full = policy_of(R"({"policy": "planner", "prefill": {"min": 0, "initial": 2, "max": 8},
      "decode": {"min": 2, "max": 4}, "planner": {"adjustment_interval_s": 60, "load_interval_s": 2,
      "forecast": "arima", "utilization": 0.9, "scale_up_ratio": 2, "scale_down_ratio": 0.5}})");
  CHECK(full.disaggregated);
  CHECK(full.prefill.min == 0);
  CHECK(full.prefill.initial == 2);
  CHECK(full.prefill.max == 8);
  CHECK(full.decode.initial == 2);
  CHECK(full.planner.adjustment_interval_s == 60);
  CHECK(full.planner.load_interval_s == 2);
  CHECK(full.planner.forecast == ForecastKind::arima);
  CHECK(full.planner.utilization == 0.9);
  CHECK(full.planner.scale_up_ratio == 2);
  CHECK(full.planner.scale_down_ratio == 0.5);
  for (const auto kind : {ScalingKind::fixed, ScalingKind::hpa, ScalingKind::planner})
    CHECK(parse_scaling_kind(name(kind)) == kind);
  CHECK_FALSE(parse_scaling_kind("vpa"));
}

TEST_CASE("a bad policy is refused with its field") {
  const auto says = [](std::string_view text, std::string_view want) {
    const std::string error = policy_error(text);
    INFO(error);
    CHECK(error.find(want) == 0);
    CHECK(error.find('\n') == std::string::npos);
  };
  says("[]", "policy.json: want a JSON object, found array");
  says("{}", "policy.json: field 'policy': missing");
  says(R"({"policy": "planer", "decode": {}})",
       "policy.json: field 'policy': 'planer' is none of fixed, hpa, planner, did you mean 'planner'?");
  says(R"({"policy": "hpa"})", "policy.json: field 'decode': missing");
  says(R"({"policy": "hpa", "decode": 3})", "policy.json: field 'decode': want a JSON object");
  says(R"({"policy": "hpa", "decode": {"min": 0}})", "policy.json: field 'decode.min': want a whole number from 1");
  says(R"({"policy": "hpa", "decode": {"min": 3, "initial": 2}})", "policy.json: field 'decode.initial': want");
  says(R"({"policy": "hpa", "decode": {"initial": 3, "max": 2}})", "policy.json: field 'decode.max': want");
  says(R"({"policy": "hpa", "decode": {"maximum": 2}})", "policy.json: ");
  says(R"({"policy": "hpa", "decode": {}, "planner": {}})", "policy.json: ");
  says(R"({"policy": "hpa", "decode": {}, "hpa": {"target": 0}})", "policy.json: field 'hpa.target': ");
  says(R"({"policy": "planner", "decode": {}, "planner": {"forecast": "prophet"}})",
       "policy.json: field 'planner.forecast': 'prophet' is none of constant, arima, kalman");
  says(R"({"policy": "planner", "decode": {}, "planner": {"load_interval_s": 200}})",
       "policy.json: field 'planner.load_interval_s': must not be longer than adjustment_interval_s");
  says(R"({"policy": "planner", "decode": {}, "planner": {"scale_down_ratio": 2}})",
       "policy.json: field 'planner.scale_down_ratio': ");
  says(R"({"policy": "planner", "decode": {}, "planner": {"utilization": 1.5}})",
       "policy.json: field 'planner.utilization': ");
}
