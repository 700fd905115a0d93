#include "generators/runtime_config.h"

#include <array>

#include "core/json.h"

namespace drydock::generators {
namespace {

using core::Json;

constexpr int kVersion = 1;
constexpr std::array<const char*, 3> kEngineNames = {"emulated", "cpu", "cuda"};

Json worker_json(const models::Pool& pool, const models::Plan& plan, int index) {
  const models::Parallelism& p = pool.parallelism;
  return {{"name", std::string(name(pool.role)) + "/" + std::to_string(index)},
          {"role", name(pool.role)},
          {"system", pool.system},
          {"gpus", p.gpus()},
          {"parallelism",
           {{"tp", p.tp}, {"pp", p.pp}, {"attention_dp", p.attention_dp}, {"moe_tp", p.moe_tp}, {"ep", p.ep}}},
          {"precision", plan.precision},
          {"kv_precision", plan.kv_precision},
          {"kv_block_tokens", models::kKvBlockTokens},
          {"kv_blocks", pool.kv_blocks},
          {"max_batch", pool.max_batch},
          {"max_tokens", pool.max_tokens}};
}

Json slo_json(const models::Slo& slo) {
  Json out = Json::object();
  if (slo.ttft_ms) out["ttft_ms"] = *slo.ttft_ms;
  if (slo.tpot_ms) out["tpot_ms"] = *slo.tpot_ms;
  if (slo.request_latency_ms) out["request_latency_ms"] = *slo.request_latency_ms;
  return out;
}

}  // namespace

std::string runtime_config(const models::Plan& plan, EngineKind engine) {
  Json workers = Json::array();
  for (const models::Pool& pool : plan.pools)
    for (int i = 0; i < pool.replicas; ++i) workers.push_back(worker_json(pool, plan, i));
  Json out = {{"schema", "drydock.runtime"},
              {"version", kVersion},
              {"model", plan.model},
              {"engine", kEngineNames[static_cast<size_t>(engine)]},
              {"scheduling", name(plan.backend)},
              {"mode", name(plan.mode)},
              {"router", {{"policy", plan.router_policy}}},
              {"slo", slo_json(plan.slo)},
              {"workers", workers},
              {"workload", {{"isl", plan.workload.isl}, {"osl", plan.workload.osl}}},
              {"secret_env", "DRYDOCK_SECRET"}};
  if (!plan.speculative.empty()) out["speculative"] = plan.speculative;
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace drydock::generators
