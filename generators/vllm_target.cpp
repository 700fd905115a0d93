#include <array>

#include "core/error.h"
#include "generators/engine_figures.h"
#include "generators/engine_files.h"
#include "generators/launch_scripts.h"
#include "generators/router_policy.h"
#include "generators/text.h"
#include "generators/vllm_flags.h"

namespace drydock::generators {
namespace {

// Data-parallel ranks start on the head node; the others run theirs without an API server ("headless").
std::string vllm_node_lines(const Request& request, const models::Pool& pool) {
  const models::Parallelism& p = pool.parallelism;
  const Layout l = layout(request, pool);
  if (l.nodes == 1) return "";
  if (p.attention_dp == 1)
    return "nodes=(--nnodes " + std::to_string(l.nodes) +
           " --node-rank \"$NODE_RANK\" --master-addr \"$HEAD_ADDR\" --master-port \"${MASTER_PORT:-29500}\")\n"
           "if [ \"$NODE_RANK\" -gt 0 ]; then nodes+=(--headless); fi\n\n";
  const int local = l.gpus_per_node / (p.tp * p.pp);  // at least 1: vllm_flags() refuses others
  const std::string ranks = std::to_string(p.attention_dp), here = std::to_string(local);
  return "start=$((NODE_RANK * " + here + "))\nlocal_ranks=$((" + ranks + " - start < " + here + " ? " + ranks +
         " - start : " + here +
         "))\nnodes=(--data-parallel-size-local \"$local_ranks\" --data-parallel-address \"$HEAD_ADDR\" "
         "--data-parallel-rpc-port "
         "\"${RPC_PORT:-13345}\")\nif [ \"$NODE_RANK\" -gt 0 ]; then nodes+=(--headless --data-parallel-start-rank "
         "\"$start\"); fi\n\n";
}

OutputFile vllm_worker(const Request& request, const models::Pool& pool, const std::string& folder) {
  const std::string role(models::name(pool.role));
  const Layout l = layout(request, pool);
  std::vector<std::string> about = {"vLLM, pool '" + role + "': " + pool_summary(request, pool) + "."};
  about.push_back(l.nodes > 1 ? "usage: REPLICA=0 NODE_RANK=0 HEAD_ADDR=host ./" + role +
                                    ".sh, once on each of an instance's nodes"
                              : "usage: REPLICA=0 ./" + role + ".sh, once for each instance");
  std::string text = script_head(request, about) + instance_lines(request, pool);
  if (request.plan.mode == models::Mode::disagg)
    text +=
        "# Where the other pool's instances ask for KV blocks; a port for each attention-DP rank from here on.\n"
        "export VLLM_NIXL_SIDE_CHANNEL_HOST=${VLLM_NIXL_SIDE_CHANNEL_HOST:-$(hostname -i | cut -d' ' -f1)}\n"
        "export VLLM_NIXL_SIDE_CHANNEL_PORT=${VLLM_NIXL_SIDE_CHANNEL_PORT:-$((" +
        std::to_string(pool.role == models::Role::prefill ? 5600 : 15600) + " + REPLICA % " +
        std::to_string(l.per_node) + " * " + std::to_string(pool.parallelism.attention_dp) + "))}\n\n";
  text += vllm_node_lines(request, pool);
  Flags flags = {{"--config", role + ".yaml"},
                 {"--served-model-name", served_name(request)},
                 {"--host", "0.0.0.0"},
                 {"--port", "PORT", true}};
  text += command_text("exec vllm serve " + shell_word(model_path(request)), flags);
  if (l.nodes > 1) {
    text.pop_back();
    text += " \\\n  \"${nodes[@]}\"\n";
  }
  return {folder + "/" + role + ".sh", text, "starts one instance of pool " + role, true};
}

OutputFile vllm_router(const Request& request, const std::string& folder) {
  const models::Plan& plan = request.plan;
  std::string text =
      script_head(request, {"The router before all instances (PyPI: vllm-router)."}) + addresses_function();
  if (plan.mode == models::Mode::disagg) {
    text += "args=(--vllm-pd-disaggregation)\n";
    for (const models::Pool& pool : plan.pools)
      text += "for address in " + addresses_call(request, pool) + "; do args+=(--" +
              std::string(models::name(pool.role)) + " \"http://$address\"); done\n";
  } else {
    text += "args=(--worker-urls)\nfor address in " + addresses_call(request, plan.pools.front()) +
            "; do args+=(\"http://$address\"); done\n";
  }
  text += command_text("exec vllm-router \"${args[@]}\"",
                       {{"--policy", router_policy(request)}, {"--host", "0.0.0.0"}, {"--port", kRouterPort}});
  return {folder + "/router.sh", text, "starts the router; clients talk to port " + std::to_string(kRouterPort), true};
}

std::vector<OutputFile> vllm_target(const Request& request) { return vllm_files(request, "vllm"); }

constexpr std::array<Setting, 5> kVllmSettings = {{
    {"model-path", "checkpoint to load: a name of the hub or a folder", "the plan's model"},
    {"served-name", "model name that clients use", "the checkpoint's"},
    {"engine-version", "release of the engine, 0.15 to 0.33", "0.33.0"},
    {"draft-model", "checkpoint that drafts, for speculative decoding by draft or eagle", "none"},
    {"router-policy", "policy of the router", "the nearest to the plan's"},
}};

}  // namespace

void check_backend(const Request& request, models::Backend backend) {
  if (request.plan.backend != backend)
    throw core::Error("plan: field 'backend': it was made for " + std::string(models::name(request.plan.backend)) +
                      ", whose scheduling and kernels were simulated; for target " +
                      std::string(models::name(backend)) + " plan again with --backend " +
                      std::string(models::name(backend)));
}

std::vector<OutputFile> vllm_files(const Request& request, const std::string& folder) {
  check_backend(request, models::Backend::vllm);
  std::vector<OutputFile> out;
  for (const models::Pool& pool : request.plan.pools) {
    const std::string role(models::name(pool.role));
    out.push_back(vllm_worker(request, pool, folder));
    out.push_back({folder + "/" + role + ".yaml", header(request, "# ") + yaml(flags_json(vllm_flags(request, pool))),
                   "vLLM's flags of pool " + role});
  }
  if (has_router(request.plan)) out.push_back(vllm_router(request, folder));
  return out;
}

const Target kVllm = {"vllm", "vLLM: launch scripts, --config YAML, vllm-router; NIXL between prefill and decode",
                      kVllmSettings, vllm_target};

}  // namespace drydock::generators
