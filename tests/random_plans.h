#pragma once
// Random deployments that are legal and fit, for tests of what is made of plans.
#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <vector>

#include "core/random.h"
#include "generators/target.h"
#include "models/catalogue.h"
#include "models/lowering.h"

namespace drydock::tests {

// All that a Request refers to; keep it where it is while the request lives.
struct PlanCase {
  models::Plan plan;
  models::Architecture architecture;
  std::map<std::string, models::System> systems;
  models::Precision precision;
  std::map<std::string, std::string> settings;
  double memory_fraction = 0.9;

  generators::Request request() const {
    return {plan,    architecture, systems,        settings, "drydock generate --plan plan.json",
            "0.0.0", precision,    memory_fraction};
  }
};

inline const std::vector<models::Architecture>& plan_models() {
  static const std::vector<models::Architecture> all = [] {
    std::vector<models::Architecture> out;
    for (const char* name : {"Qwen/Qwen3-32B", "Qwen/Qwen3-30B-A3B", "deepseek-ai/DeepSeek-V3", "openai/gpt-oss-120b",
                             "meta-llama/Llama-3.1-8B"})
      out.push_back(models::find_model(name));
    return out;
  }();
  return all;
}

inline const std::vector<models::System>& plan_systems() {
  static const std::vector<models::System> all = {models::find_system("h200_sxm"), models::find_system("b200_sxm"),
                                                  models::find_system("gb200")};
  return all;
}

// KV blocks that the fullest stage leaves room for; 0 or less: does not fit.
inline int64_t fitting_blocks(const PlanCase& c, const models::Pool& pool, double copies) {
  double tokens = 1e12;
  const models::System& system = c.systems.at(pool.system);
  for (int stage = 0; stage < pool.parallelism.pp; ++stage) {
    const auto m = models::stage_memory(c.architecture, c.precision, pool.parallelism, stage, pool.max_tokens, copies);
    if (m.kv_per_token <= 0) return 0;
    tokens = std::min(tokens, (system.memory_bytes * c.memory_fraction - m.fixed()) / m.kv_per_token);
  }
  return static_cast<int64_t>(tokens / static_cast<double>(models::kKvBlockTokens));
}

// One pool, or nullopt where the draw is not legal or does not fit.
inline std::optional<models::Pool> random_pool(core::Random& random, const PlanCase& c, models::Role role,
                                               int slots_per_rank, int64_t experts) {
  const auto power = [&](int most) { return 1 << random.integer(0, most); };
  models::Pool pool;
  pool.role = role;
  pool.system = c.systems.begin()->first;
  models::Parallelism& p = pool.parallelism;
  p = {power(3), random.integer(0, 3) == 0 ? 2 : 1, 1, 1, 1};
  if (experts > 0) {
    p.attention_dp = random.integer(0, 1) == 0 ? 1 : power(4);
    p.ep = std::min<int>(power(5), p.tp * p.attention_dp);
    p.moe_tp = p.tp * p.attention_dp / p.ep;
  }
  if (models::why_illegal(c.architecture, c.precision, p)) return std::nullopt;
  pool.replicas = static_cast<int>(random.integer(1, 5));
  pool.max_batch = random.integer(1, 512) * p.attention_dp;
  pool.max_tokens = int64_t{1024} << random.integer(0, 4);
  const double copies = slots_per_rank > 0 && p.ep > 1
                            ? 1 + static_cast<double>(slots_per_rank * p.ep) / static_cast<double>(experts)
                            : 1;
  pool.kv_blocks = fitting_blocks(c, pool, copies);
  if (pool.kv_blocks < 100) return std::nullopt;
  return pool;
}

// The same for the same seed. Engines may still lack what it asks for.
inline PlanCase random_case(uint64_t seed, models::Backend backend) {
  core::Random random(seed);
  for (;;) {
    PlanCase c;
    c.architecture =
        plan_models()[static_cast<size_t>(random.integer(0, static_cast<int64_t>(plan_models().size()) - 1))];
    const models::System& system = plan_systems()[static_cast<size_t>(random.integer(0, 2))];
    c.systems[system.name()] = system;
    c.plan.model = c.architecture.name;
    c.plan.backend = backend;
    c.precision = c.architecture.precision;
    c.plan.precision = "auto";
    if (random.integer(0, 1) == 0) c.precision.kv = core::Dtype::fp8, c.plan.kv_precision = "fp8";
    int64_t experts = 0;
    for (const auto& kind : c.architecture.kinds)
      if (kind.ffn) experts = std::max(experts, kind.ffn->experts);
    const int per_rank = experts > 0 && random.integer(0, 4) == 0 ? 1 : 0;
    const bool apart = random.integer(0, 1) == 0;
    c.plan.mode = apart ? models::Mode::disagg : models::Mode::agg;
    const auto roles = apart ? std::vector<models::Role>{models::Role::prefill, models::Role::decode}
                             : std::vector<models::Role>{models::Role::worker};
    for (const models::Role role : roles)
      if (const auto pool = random_pool(random, c, role, per_rank, experts)) c.plan.pools.push_back(*pool);
    if (c.plan.pools.size() != roles.size()) continue;
    if (per_rank > 0) {
      c.plan.experts.skew = 0.8;
      c.plan.experts.slots = static_cast<int>(experts + c.plan.pools.back().parallelism.ep * per_rank);
    }
    constexpr std::array<const char*, 5> kSpeculative = {"", "", "ngram:k=4,p=0.5", "eagle:k=3,p=0.7",
                                                         "draft:k=5,p=0.8"};
    c.plan.speculative = kSpeculative[static_cast<size_t>(random.integer(0, 4))];
    if (c.architecture.mtp_layers > 0 && random.integer(0, 1) == 0) c.plan.speculative = "mtp:k=1,p=0.85";
    c.settings["draft-model"] = "some/draft";
    constexpr std::array<const char*, 4> kPolicies = {"round_robin", "least_outstanding_tokens", "power_of_two",
                                                      "kv_aware"};
    c.plan.router_policy = kPolicies[static_cast<size_t>(random.integer(0, 3))];
    models::Workload& w = c.plan.workload;
    w.isl = random.integer(1, 8000);
    w.osl = random.integer(1, 2000);
    if (random.integer(0, 1) == 0) w.shortest = 0.8, w.longest = 1;
    if (random.integer(0, 2) == 0) w.prefix_hit = random.uniform() * 0.9;
    if (random.integer(0, 3) == 0) w.stream_interval = 10;
    if (const int64_t load = random.integer(0, 2); load == 0)
      w.rate = 0.1 + random.uniform() * 50;
    else if (load == 1)
      w.concurrency = static_cast<double>(random.integer(1, 2000));
    c.plan.slo = {1000.0, 20.0, std::nullopt, 95.0};
    return c;
  }
}

}  // namespace drydock::tests
