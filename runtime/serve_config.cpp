#include "runtime/serve_config.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "core/file.h"
#include "core/json.h"
#include "scheduler/router.h"

namespace drydock::runtime {
namespace {

using core::Fields;
using models::Pool;
using models::Role;

constexpr int64_t kMostWays = 1 << 16, kMostTokens = 1'000'000'000;
constexpr double kMostMs = 1e9;
constexpr size_t kMostVariableName = 64;
constexpr std::array<std::string_view, 3> kServeEngines = {"emulated", "cpu", "cuda"};

template <typename Value, typename Parse>
Value named(const Fields& f, std::string_view field, const Parse& parse, const char* want) {
  const auto value = parse(f.text(field));
  if (!value) throw f.error(field, std::string("want ") + want);
  return *value;
}

std::optional<Role> parse_role(std::string_view text) {
  for (const Role role : {Role::worker, Role::prefill, Role::decode})
    if (models::name(role) == text) return role;
  return std::nullopt;
}

models::Parallelism parse_parallelism(const Fields& f) {
  f.only({"tp", "pp", "attention_dp", "moe_tp", "ep"});
  const auto ways = [&](std::string_view field) { return static_cast<int>(f.integer_or(field, 1, 1, kMostWays)); };
  const models::Parallelism p = {ways("tp"), ways("pp"), ways("attention_dp"), ways("moe_tp"), ways("ep")};
  if (1.0 * p.tp * p.pp * p.attention_dp > kMostWays || 1.0 * p.moe_tp * p.ep > kMostWays)
    throw f.error("tp", "tp x pp x attention_dp and moe_tp x ep must be at most 65536 GPUs");
  return p;
}

void check_slo(const Fields& f) {
  f.only({"ttft_ms", "tpot_ms", "request_latency_ms"});
  for (const char* field : {"ttft_ms", "tpot_ms", "request_latency_ms"}) f.optional_number(field, 1e-3, kMostMs);
}

// A name that every shell and service manager takes, so that it can stand before "=" in an environment.
std::string parse_secret_env(const Fields& f) {
  const std::string name = f.text_or("secret_env", ServeConfig{}.secret_env);
  const auto fits = [](unsigned char c) { return std::isalnum(c) || c == '_'; };
  if (name.empty() || name.size() > kMostVariableName || std::isdigit(static_cast<unsigned char>(name[0])) ||
      !std::all_of(name.begin(), name.end(), fits))
    throw f.error("secret_env",
                  "want the name of an environment variable: 1 to 64 letters, digits and underscores, no digit first");
  return name;
}

// Workers of a role are a pool: they must be equal, and named in order. Formats are the plan's.
void add_worker(const Fields& f, models::Plan& plan) {
  f.only({"name", "role", "system", "gpus", "parallelism", "precision", "kv_precision", "kv_block_tokens", "kv_blocks",
          "max_batch", "max_tokens"});
  Pool pool;
  pool.role = named<Role>(f, "role", parse_role, "worker, prefill or decode");
  pool.system = f.text("system");
  pool.parallelism = parse_parallelism(f.object("parallelism"));
  pool.kv_blocks = f.integer("kv_blocks", 0, kMostTokens);
  pool.max_batch = f.integer("max_batch", 1, kMostTokens);
  pool.max_tokens = f.integer("max_tokens", 1, kMostTokens);
  if (f.integer_or("gpus", pool.parallelism.gpus(), 1, kMostWays) != pool.parallelism.gpus())
    throw f.error("gpus", "want tp x pp x attention_dp, which is " + std::to_string(pool.parallelism.gpus()));
  const std::string precision = f.text("precision"), kv_precision = f.text_or("kv_precision", "auto");
  if (plan.pools.empty()) plan.precision = precision, plan.kv_precision = kv_precision;
  if (precision != plan.precision) throw f.error("precision", "workers must have the same");
  if (kv_precision != plan.kv_precision) throw f.error("kv_precision", "workers must have the same");
  if (f.integer("kv_block_tokens", 1, kMostTokens) != models::kKvBlockTokens)
    throw f.error("kv_block_tokens", "want " + std::to_string(models::kKvBlockTokens));
  const auto same =
      std::find_if(plan.pools.begin(), plan.pools.end(), [&](const Pool& p) { return p.role == pool.role; });
  const int index = same == plan.pools.end() ? 0 : same->replicas;
  const std::string name = std::string(models::name(pool.role)) + "/" + std::to_string(index);
  if (f.text("name") != name) throw f.error("name", "want '" + name + "': names count the workers of a role");
  if (same == plan.pools.end()) return plan.pools.push_back(pool);
  const bool equal = same->system == pool.system && same->parallelism == pool.parallelism &&
                     same->kv_blocks == pool.kv_blocks && same->max_batch == pool.max_batch &&
                     same->max_tokens == pool.max_tokens;
  if (!equal) throw f.error("role", "workers of one role must be equal");
  if (++same->replicas * 1.0 * same->parallelism.gpus() > kMostWays)
    throw f.error("role", "all workers of a role together must have at most 65536 GPUs");
}

void check_roles(const Fields& f, models::Plan& plan) {
  std::sort(plan.pools.begin(), plan.pools.end(), [](const Pool& a, const Pool& b) { return a.role < b.role; });
  const bool agg = plan.pools.size() == 1 && plan.pools[0].role == Role::worker;
  const bool disagg =
      plan.pools.size() == 2 && plan.pools[0].role == Role::prefill && plan.pools[1].role == Role::decode;
  if (plan.mode == models::Mode::agg ? !agg : !disagg)
    throw f.error("workers", plan.mode == models::Mode::agg ? "mode agg wants workers of role worker"
                                                            : "mode disagg wants workers of roles prefill and decode");
}

ServeConfig parse_runtime_json(const Fields& f) {
  f.only({"schema", "version", "model", "engine", "scheduling", "mode", "router", "slo", "workers", "workload",
          "speculative", "draft_model_path", "secret_env"});
  f.integer("version", 1, 1);
  ServeConfig out;
  models::Plan& plan = out.plan;
  plan.model = f.text("model");
  out.engine = f.text("engine");
  if (std::find(kServeEngines.begin(), kServeEngines.end(), out.engine) == kServeEngines.end())
    throw f.error("engine", "want emulated, cpu or cuda");
  plan.backend = named<models::Backend>(f, "scheduling", models::parse_backend, "trtllm, vllm, sglang or drydock");
  const std::string mode = f.text("mode");
  if (mode != "agg" && mode != "disagg") throw f.error("mode", "want agg or disagg");
  plan.mode = mode == "agg" ? models::Mode::agg : models::Mode::disagg;
  const Fields router = f.object("router");
  router.only({"policy"});
  plan.router_policy = router.text("policy");
  if (!scheduler::parse_router_policy(plan.router_policy))
    throw router.error("policy", "want round_robin, least_outstanding_tokens, power_of_two or kv_aware");
  const Fields workload = f.object("workload");
  workload.only({"isl", "osl"});
  plan.workload.isl = workload.integer("isl", 1, kMostTokens);
  plan.workload.osl = workload.integer("osl", 1, kMostTokens);
  plan.speculative = f.text_or("speculative", "");
  out.draft_model_path = f.text_or("draft_model_path", "");
  out.secret_env = parse_secret_env(f);
  if (f.has("slo")) check_slo(f.object("slo"));
  const core::Json& workers = f.array("workers");
  size_t index = 0;
  for (const core::Json& worker : workers)
    add_worker(Fields(worker, f.origin(), "workers[" + std::to_string(index++) + "]"), plan);
  check_roles(f, plan);
  return out;
}

}  // namespace

ServeConfig parse_serve_config(std::string_view json, std::string_view origin) {
  const core::Json parsed = core::parse_json(json, origin);
  const Fields f(parsed, std::string(origin));
  if (f.text_or("schema", "") == "drydock.runtime") return parse_runtime_json(f);
  ServeConfig out;
  out.plan = models::parse_plan(json, origin);
  return out;
}

ServeConfig read_serve_config(const std::filesystem::path& file) {
  return parse_serve_config(core::read_file(file, core::kMaxJsonBytes), file.string());
}

}  // namespace drydock::runtime
