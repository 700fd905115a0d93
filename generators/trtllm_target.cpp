#include <array>

#include "generators/engine_figures.h"
#include "generators/engine_files.h"
#include "generators/launch_scripts.h"
#include "generators/text.h"
#include "generators/trtllm_options.h"

namespace drydock::generators {
namespace {

using core::Json;

OutputFile trtllm_worker(const Request& request, const models::Pool& pool, const std::string& folder) {
  const std::string role(models::name(pool.role));
  const Layout l = layout(request, pool);
  std::vector<std::string> about = {"TensorRT-LLM, pool '" + role + "': " + pool_summary(request, pool) + "."};
  about.push_back(l.nodes > 1
                      ? "usage: REPLICA=0 HOSTS=host:8,other:8 ./" + role +
                            ".sh, once an instance on its first node; under srun, once for each GPU, without HOSTS"
                      : "usage: REPLICA=0 ./" + role + ".sh, once for each instance");
  std::string text = script_head(request, about) + instance_lines(request, pool, false);
  Flags flags = {{"--host", "0.0.0.0"}, {"--port", "PORT", true}, {"--extra_llm_api_options", role + ".yaml"}};
  for (Flag& flag : trtllm_flags(request, pool)) flags.push_back(std::move(flag));
  std::string program = "exec trtllm-serve ";
  if (l.nodes > 1) {  // one MPI process for each GPU
    text +=
        "if [ \"${SLURM_STEP_NUM_TASKS:-1}\" -gt 1 ]; then\n  launch=(trtllm-llmapi-launch)\nelse\n  launch=(mpirun "
        "-n " +
        std::to_string(l.gpus) +
        " -H \"${HOSTS:?host:GPUs of all nodes of this instance}\" trtllm-llmapi-launch)\nfi\n";
    program = "exec \"${launch[@]}\" trtllm-serve ";
  }
  text += command_text(program + shell_word(model_path(request)), flags);
  return {folder + "/" + role + ".sh", text, "starts one instance of pool " + role, true};
}

// Stands for an instance's address until the router starts; no host has such a name, so that one that is put in for
// another instance is not taken for it.
std::string address_mark(const models::Pool& pool, const std::string& index) {
  return "@" + std::string(models::name(pool.role)) + "-" + index + "@";
}

Json server_urls(const Request& request, const models::Pool& pool) {
  Json urls = Json::array();
  for (int i = 0; i < pool.replicas; ++i) urls.push_back(address_mark(pool, std::to_string(i)));
  return {{"num_instances", pool.replicas},
          {"router",
           {{"type", request.plan.router_policy == "kv_aware"      ? "kv_cache_aware"
                     : request.plan.router_policy == "round_robin" ? "round_robin"
                                                                   : "load_balancing"}}},
          {"urls", urls}};
}

// Marks of instances are replaced by their addresses when the router starts.
std::string replace_hosts(const Request& request, const std::string& file) {
  std::string text = addresses_function() + "config=$(mktemp --suffix=" + file.substr(file.rfind('.')) +
                     ")\ntrap 'rm -f \"$config\"' EXIT\ncp " + file + " \"$config\"\n";
  for (const models::Pool& pool : request.plan.pools) {
    const std::string role(models::name(pool.role));
    text += "i=0\nfor address in " + addresses_call(request, pool) +
            "; do\n  [[ $address =~ ^[A-Za-z0-9._-]+:[0-9]+$ ]] || { echo \"bad host in " +
            "$address\" >&2; exit 2; }\n  sed -i \"s/" + address_mark(pool, "$i") +
            "/$address/\" \"$config\"\n  i=$((i + 1))\ndone\n";
  }
  return text;
}

void add_trtllm_router(const Request& request, const std::string& folder, std::vector<OutputFile>& out) {
  const models::Plan& plan = request.plan;
  const std::string clients = "; clients talk to port " + std::to_string(kRouterPort);
  if (plan.mode == models::Mode::disagg) {
    const Json config = {{"hostname", "0.0.0.0"},
                         {"port", kRouterPort},
                         {"backend", "pytorch"},
                         {"context_servers", server_urls(request, plan.pools.front())},
                         {"generation_servers", server_urls(request, plan.pools.back())}};
    out.push_back({folder + "/disaggregated.yaml", header(request, "# ") + yaml(config),
                   "of trtllm-serve disaggregated: names of instances, which router.sh replaces by hosts"});
    out.push_back({folder + "/router.sh",
                   script_head(request, {"The router between prefill and decode: trtllm-serve disaggregated."}) +
                       replace_hosts(request, "disaggregated.yaml") +
                       "trtllm-serve disaggregated --config_file \"$config\"\n",
                   "starts the router" + clients, true});
    return;
  }
  std::string servers;
  const models::Pool& pool = plan.pools.front();
  for (int i = 0; i < pool.replicas; ++i) servers += "    server " + address_mark(pool, std::to_string(i)) + ";\n";
  out.push_back({folder + "/nginx.conf",
                 header(request, "# ") + "events {}\nhttp {\n  upstream workers {\n    least_conn;\n" + servers +
                     "  }\n  server {\n    listen " + std::to_string(kRouterPort) +
                     ";\n    location / {\n      proxy_pass http://workers;\n      proxy_http_version 1.1;\n"
                     "      proxy_set_header Connection \"\";\n      proxy_buffering off;\n      proxy_read_timeout "
                     "3600s;\n    }\n  }\n}\n",
                 "nginx before all instances, as TensorRT-LLM has no router of whole ones"});
  out.push_back({folder + "/router.sh",
                 script_head(request, {"nginx before all instances."}) + replace_hosts(request, "nginx.conf") +
                     "nginx -c \"$config\" -g 'daemon off;'\n",
                 "starts the router" + clients, true});
}

std::vector<OutputFile> trtllm_target(const Request& request) { return trtllm_files(request, "trtllm"); }

constexpr std::array<Setting, 3> kTrtllmSettings = {{
    {"model-path", "checkpoint to load, in the plan's formats: a name of the hub or a folder", "the plan's model"},
    {"engine-version", "release of the engine, 1.1 or 1.2", "1.2.1"},
    {"draft-model", "checkpoint that drafts, for speculative decoding by draft or eagle", "none"},
}};

}  // namespace

std::vector<OutputFile> trtllm_files(const Request& request, const std::string& folder) {
  check_backend(request, models::Backend::trtllm);
  std::vector<OutputFile> out;
  for (const models::Pool& pool : request.plan.pools) {
    const std::string role(models::name(pool.role));
    out.push_back(trtllm_worker(request, pool, folder));
    out.push_back({folder + "/" + role + ".yaml", header(request, "# ") + yaml(trtllm_options(request, pool)),
                   "TensorRT-LLM's options of pool " + role});
  }
  if (has_router(request.plan)) add_trtllm_router(request, folder, out);
  return out;
}

const Target kTrtllm = {"trtllm", "TensorRT-LLM: trtllm-serve scripts and options YAML, its disaggregated server",
                        kTrtllmSettings, trtllm_target};

}  // namespace drydock::generators
