#include <doctest/doctest.h>

#include "core/error.h"
#include "core/json.h"
#include "models/plan.h"

using namespace drydock;
using namespace drydock::models;

namespace {

Plan disaggregated() {
  Plan plan;
  plan.model = "Qwen/Qwen3-32B";
  plan.precision = "fp8";
  plan.kv_precision = "fp8";
  plan.backend = Backend::sglang;
  plan.backend_version = "0.5";
  plan.mode = Mode::disagg;
  plan.pools = {{Role::prefill, "h200_sxm", {2, 1, 1, 1, 1}, 3, 4, 8192, 1000},
                {Role::decode, "h100_sxm", {4, 2, 1, 1, 1}, 1, 64, 512, 2000}};
  plan.workload.isl = 4000;
  plan.workload.osl = 1000;
  plan.workload.prefix_hit = 0.25;
  plan.workload.rate = 12.5;
  plan.slo.ttft_ms = 1000;
  plan.slo.request_latency_ms = 30000;
  Prediction p;
  p.ttft_ms = {800, 600, 1100};
  p.tpot_ms = {15, 12, 18};
  p.cost_per_million_tokens = core::Figure{0.5, 0.4, 0.6};
  plan.prediction = p;
  return plan;
}

std::string changed(const char* pointer, const core::Json& value) {
  core::Json json = core::parse_json(to_json(disaggregated()), "x");
  json[core::Json::json_pointer(pointer)] = value;
  return json.dump();
}

std::string plan_error(const std::string& text) {
  try {
    parse_plan(text, "plan.json");
  } catch (const core::Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a plan reads back as it was written") {
  const Plan plan = disaggregated();
  const std::string text = to_json(plan);
  const Plan back = parse_plan(text, "plan.json");
  CHECK(to_json(back) == text);
  CHECK(back.gpus() == 14);
  CHECK(back.pool(Role::decode).parallelism == Parallelism{4, 2, 1, 1, 1});
  CHECK(back.workload.rate == 12.5);
  CHECK(!back.slo.tpot_ms);
  CHECK(back.prediction->ttft_ms.high == 1100);
}

TEST_CASE("speculation, experts and overlap read back, and are not there unless they were set") {
  CHECK(to_json(disaggregated()).find("overlap") == std::string::npos);
  CHECK(to_json(disaggregated()).find("experts") == std::string::npos);
  CHECK(to_json(disaggregated()).find("speculative") == std::string::npos);
  Plan plan = disaggregated();
  plan.speculative = "mtp:k=3,p=0.8";
  plan.experts = {0.8, "", 288};
  plan.pools[1].two_batch_overlap = plan.pools[1].shared_expert_overlap = true;
  plan.pools[1].waits = {20, 0.9, 30, 50, 10};
  const Plan back = parse_plan(to_json(plan), "plan.json");
  CHECK(to_json(back) == to_json(plan));
  CHECK(back.speculative == "mtp:k=3,p=0.8");
  CHECK(back.experts.skew == 0.8);
  CHECK(back.experts.slots == 288);
  CHECK(!back.pools[0].two_batch_overlap);
  CHECK(back.pools[0].waits == PromptWaits{});
  CHECK(back.pools[1].waits == PromptWaits{20, 0.9, 30, 50, 10});
  CHECK((back.pools[1].two_batch_overlap && back.pools[1].shared_expert_overlap));
  plan.experts = {std::nullopt, "counts.json", 0};
  CHECK(parse_plan(to_json(plan), "plan.json").experts.histogram == "counts.json");
  CHECK(plan_error(changed("/experts", {{"slots", 288}})) ==
        "plan.json: field 'experts.skew': give either skew or histogram");
  CHECK(plan_error(changed("/experts", {{"skew", 11}})).starts_with("plan.json: field 'experts.skew': "));
  CHECK(plan_error(changed("/speculative", 3)).starts_with("plan.json: field 'speculative': "));
  CHECK(plan_error(changed("/pools/0/two_batch_overlap", 1))
            .starts_with("plan.json: field 'pools[0].two_batch_overlap'"));
}

TEST_CASE("what is wrong in a plan is named") {
  CHECK(plan_error(changed("/schema", "other")) == "plan.json: field 'schema': want 'drydock.plan'");
  CHECK(plan_error(changed("/version", 2)) ==
        "plan.json: field 'version': is newer than this program, which reads 1; use the "
        "drydock that wrote it, or plan again");
  CHECK(plan_error(changed("/backend", "vlm")) == "plan.json: field 'backend': want trtllm, vllm, sglang or drydock");
  CHECK(plan_error(changed("/mode", "agg")) ==
        "plan.json: field 'pools': want one pool of role worker in mode agg, pools prefill and decode in mode disagg");
  CHECK(plan_error(changed("/pools/1/tp", 0)) ==
        "plan.json: field 'pools[1].tp': want a whole number from 1 to 65536, found 0");
  CHECK(plan_error(changed("/pools/0/max_batch", -3))
            .starts_with("plan.json: field 'pools[0].max_batch': want a whole number"));
  CHECK(plan_error(changed("/workload/prefix_hit", 1.5))
            .starts_with("plan.json: field 'workload.prefix_hit': want a number"));
  CHECK(plan_error(changed("/workload/concurrency", 4)) ==
        "plan.json: field 'workload.rate': give rate or concurrency, not both");
  CHECK(plan_error(changed("/pool", 4)) == "plan.json: field 'pool': not known here, did you mean 'pools'?");
  CHECK(plan_error(changed("/prediction/ttft_ms/mean", 1))
            .starts_with("plan.json: field 'prediction.ttft_ms.mean': not known"));
  CHECK(plan_error(changed("/prediction/ttft_ms", 800)).starts_with("plan.json: field 'prediction.ttft_ms': "));
  CHECK(plan_error(changed("/prediction/tpot_ms/low", nullptr)) ==
        "plan.json: field 'prediction.tpot_ms.low': missing");
  CHECK(plan_error(changed("/pools/0/replicas", 40000)) ==
        "plan.json: field 'pools[0].replicas': replicas x tp x pp x attention_dp must be at most 65536 GPUs");
  CHECK(plan_error(changed("/pools", core::Json::array())).starts_with("plan.json: field 'pools': want one pool"));
  CHECK(plan_error("[]") == "plan.json: want a JSON object, found array");
}

TEST_CASE("a plan without a prediction, targets or load reads back") {
  Plan plan = disaggregated();
  plan.mode = Mode::agg;
  plan.pools = {{Role::worker, "h200_sxm", {2, 1, 4, 1, 8}, 2, 64, 8192, 0}};
  plan.workload.rate.reset();
  plan.slo = {};
  plan.prediction.reset();
  const Plan back = parse_plan(to_json(plan), "plan.json");
  CHECK(to_json(back) == to_json(plan));
  CHECK(back.gpus() == 16);
  CHECK(!back.workload.rate);
  CHECK(!back.workload.concurrency);
  CHECK(back.workload.connections == 0);
  CHECK(!back.prediction);
  plan.workload.connections = 100;
  CHECK(parse_plan(to_json(plan), "plan.json").workload.connections == 100);
}

TEST_CASE("names of backends") {
  CHECK(parse_backend("vllm") == Backend::vllm);
  CHECK(!parse_backend("VLLM"));
  for (int i = 0; i < kBackends; ++i) CHECK(parse_backend(name(static_cast<Backend>(i))) == static_cast<Backend>(i));
}
