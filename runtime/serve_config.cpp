#include "runtime/serve_config.h"

#include <algorithm>
#include <array>

#include "core/file.h"
#include "core/json.h"
#include "scheduler/router.h"

namespace drydock::runtime {
namespace {

using core::Fields;
using models::Pool;
using models::Role;

constexpr int64_t kMostWays = 1 << 16, kMostTokens = 1'000'000'000;
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
  return {ways("tp"), ways("pp"), ways("attention_dp"), ways("moe_tp"), ways("ep")};
}

// Workers of a role are a pool: they must be equal, and named in order.
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
  plan.precision = f.text("precision");
  plan.kv_precision = f.text_or("kv_precision", "auto");
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
  ++same->replicas;
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
          "speculative", "secret_env"});
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
  const Fields workload = f.object("workload");
  workload.only({"isl", "osl"});
  plan.workload.isl = workload.integer("isl", 1, kMostTokens);
  plan.workload.osl = workload.integer("osl", 1, kMostTokens);
  plan.speculative = f.text_or("speculative", "");
  out.secret_env = f.text_or("secret_env", out.secret_env);
  size_t index = 0;
  for (const core::Json& worker : f.array("workers"))
    add_worker(Fields(worker, f.origin(), "workers[" + std::to_string(index++) + "]."), plan);
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
  return parse_serve_config(core::read_file(file), file.string());
}

}  // namespace drydock::runtime
