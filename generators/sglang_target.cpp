#include <array>

#include "generators/engine_figures.h"
#include "generators/engine_files.h"
#include "generators/launch_scripts.h"
#include "generators/router_policy.h"
#include "generators/sglang_flags.h"
#include "generators/text.h"

namespace drydock::generators {
namespace {

constexpr int kBootstrapPort = 8998;

std::string sglang_place(const Layout& l) { return l.per_node > 1 ? "REPLICA % " + std::to_string(l.per_node) : "0"; }

OutputFile sglang_worker(const Request& request, const models::Pool& pool, const std::string& folder) {
  const std::string role(models::name(pool.role));
  const Layout l = layout(request, pool);
  std::vector<std::string> about = {"SGLang, pool '" + role + "': " + pool_summary(request, pool) + "."};
  about.push_back(l.nodes > 1 ? "usage: REPLICA=0 NODE_RANK=0 HEAD_ADDR=host ./" + role +
                                    ".sh, once on each of an instance's nodes"
                              : "usage: REPLICA=0 ./" + role + ".sh, once for each instance");
  std::string text = script_head(request, about) + instance_lines(request, pool);
  Flags flags = {{"--model-path", model_path(request)},
                 {"--served-model-name", served_name(request)},
                 {"--host", "0.0.0.0"},
                 {"--port", "PORT", true}};
  for (Flag& flag : sglang_flags(request, pool)) flags.push_back(std::move(flag));
  if (pool.role == models::Role::prefill) {
    text += "BOOTSTRAP_PORT=$((" + std::to_string(kBootstrapPort) + " + " + sglang_place(l) + "))\n";
    flags.push_back({"--disaggregation-bootstrap-port", "BOOTSTRAP_PORT", true});
  }
  if (l.nodes > 1) {
    text += "DIST_INIT=$HEAD_ADDR:${DIST_PORT:-20000}\n";
    flags.push_back({"--nnodes", l.nodes});
    flags.push_back({"--node-rank", "NODE_RANK", true});
    flags.push_back({"--dist-init-addr", "DIST_INIT", true});
  }
  text += command_text("exec python3 -m sglang.launch_server", flags);
  return {folder + "/" + role + ".sh", text, "starts one instance of pool " + role, true};
}

OutputFile sglang_router(const Request& request, const std::string& folder) {
  const models::Plan& plan = request.plan;
  std::string text =
      script_head(request, {"The router before all instances (PyPI: sglang-router)."}) + addresses_function();
  if (plan.mode == models::Mode::disagg) {
    const models::Pool &prefill = plan.pools.front(), &decode = plan.pools.back();
    text += "args=(--pd-disaggregation)\ni=0\nfor address in " + addresses_call(request, prefill) + "; do\n" +
            "  args+=(--prefill \"http://$address\" $((" + std::to_string(kBootstrapPort) + " + i % " +
            std::to_string(layout(request, prefill).per_node) + ")))\n  i=$((i + 1))\ndone\n";
    text += "for address in " + addresses_call(request, decode) + "; do args+=(--decode \"http://$address\"); done\n";
  } else {
    text += "args=(--worker-urls)\nfor address in " + addresses_call(request, plan.pools.front()) +
            "; do args+=(\"http://$address\"); done\n";
  }
  text += command_text("exec python3 -m sglang_router.launch_router \"${args[@]}\"",
                       {{"--policy", router_policy(request)}, {"--host", "0.0.0.0"}, {"--port", kRouterPort}});
  return {folder + "/router.sh", text, "starts the router; clients talk to port " + std::to_string(kRouterPort), true};
}

std::vector<OutputFile> sglang_target(const Request& request) { return sglang_files(request, "sglang"); }

constexpr std::array<Setting, 5> kSglangSettings = {{
    {"model-path", "checkpoint to load: a name of the hub or a folder", "the plan's model"},
    {"served-name", "model name that clients use", "the checkpoint's"},
    {"engine-version", "release of the engine, 0.5.9 to 0.5.23", "0.5.23"},
    {"draft-model", "checkpoint that drafts, for speculative decoding by draft or eagle", "none"},
    {"router-policy", "policy of the router", "the nearest to the plan's"},
}};

}  // namespace

std::vector<OutputFile> sglang_files(const Request& request, const std::string& folder) {
  check_backend(request, models::Backend::sglang);
  std::vector<OutputFile> out;
  for (const models::Pool& pool : request.plan.pools) out.push_back(sglang_worker(request, pool, folder));
  if (has_router(request.plan)) out.push_back(sglang_router(request, folder));
  return out;
}

const Target kSglang = {"sglang", "SGLang: launch scripts and sglang-router; NIXL between prefill and decode",
                        kSglangSettings, sglang_target};

}  // namespace drydock::generators
