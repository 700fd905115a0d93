#include <doctest/doctest.h>

#include "core/json.h"
#include "generators/runtime_config.h"

using namespace drydock;

TEST_CASE("every worker of the plan is in the runtime's configuration, with the plan's limits") {
  models::Plan plan;
  plan.model = "Qwen/Qwen3-32B";
  plan.precision = "fp8";
  plan.mode = models::Mode::disagg;
  plan.pools = {{models::Role::prefill, "h200_sxm", {2, 1, 1, 1, 1}, 2, 4, 8192, 1000},
                {models::Role::decode, "h200_sxm", {4, 2, 1, 1, 1}, 1, 64, 512, 2000}};
  plan.slo.tpot_ms = 20;
  const core::Json json = core::parse_json(generators::runtime_config(plan), "runtime.json");
  CHECK(json["schema"] == "drydock.runtime");
  CHECK(json["engine"] == "emulated");
  REQUIRE(json["workers"].size() == 3);
  CHECK(json["workers"][1]["name"] == "prefill/1");
  CHECK(json["workers"][2]["name"] == "decode/0");
  CHECK(json["workers"][2]["gpus"] == 8);
  CHECK(json["workers"][2]["max_batch"] == 64);
  CHECK(json["workers"][2]["kv_blocks"] == 2000);
  CHECK(json["slo"]["tpot_ms"] == 20);
  CHECK(!json["slo"].contains("ttft_ms"));
  CHECK(generators::runtime_config(plan) == generators::runtime_config(plan));
  CHECK(core::parse_json(generators::runtime_config(plan, generators::EngineKind::cuda), "x")["engine"] == "cuda");
}
