#include "generators/launch_scripts.h"

#include <algorithm>

#include "generators/text.h"

namespace drydock::generators {
namespace {

Layout pool_layout(const Request& request, const models::Pool& pool) {
  Layout out;
  out.gpus = pool.parallelism.gpus();
  out.gpus_per_node = std::max(1, request.system(pool).hardware.gpus_per_node);
  out.nodes = (out.gpus + out.gpus_per_node - 1) / out.gpus_per_node;
  out.per_node = std::max(1, out.gpus_per_node / out.gpus);
  out.total_nodes = out.nodes > 1 ? out.nodes * pool.replicas : (pool.replicas + out.per_node - 1) / out.per_node;
  return out;
}

}  // namespace

Layout layout(const Request& request, const models::Pool& pool) {
  Layout out = pool_layout(request, pool);
  const models::Pool& first = request.plan.pools.front();
  if (pool.role == first.role) return out;
  if (first.system == pool.system && request.plan.gpus() <= out.gpus_per_node)
    out.first_gpu = first.gpus();
  else
    out.first_node = pool_layout(request, first).total_nodes;
  return out;
}

bool has_router(const models::Plan& plan) {
  return plan.mode == models::Mode::disagg || plan.pools.front().replicas > 1;
}

int base_port(const models::Plan& plan, models::Role role) {
  if (!has_router(plan)) return kRouterPort;
  return role == models::Role::decode ? 8300 : role == models::Role::prefill ? 8200 : 8100;
}

std::string script_head(const Request& request, const std::vector<std::string>& about) {
  std::string out = "#!/usr/bin/env bash\n" + header(request, "# ");
  for (const std::string& line : about) out += "# " + comment_text(line) + "\n";
  return out + "set -euo pipefail\ncd \"$(dirname \"${BASH_SOURCE[0]}\")\"\n\n";
}

std::string instance_lines(const Request& request, const models::Pool& pool, bool ranked) {
  const Layout l = layout(request, pool);
  std::string out = "REPLICA=${REPLICA:-0}  # of " + std::to_string(pool.replicas) + "\n";
  const std::string place = l.per_node > 1 ? "REPLICA % " + std::to_string(l.per_node) : "0";
  out += "PORT=${PORT:-$((" + std::to_string(base_port(request.plan, pool.role)) + " + " + place + "))}\n";
  if (l.nodes > 1 && ranked) {
    out += "NODE_RANK=${NODE_RANK:-${SLURM_NODEID:-0}}  # 0 to " + std::to_string(l.nodes - 1) + "\n";
    out += ": \"${HEAD_ADDR:?address of the first node of this instance}\"\n";
  } else if (l.gpus < l.gpus_per_node) {
    const std::string from = l.first_gpu > 0 ? std::to_string(l.first_gpu) + " + " : "";
    out += "first=$((" + from + (l.per_node > 1 ? "(" + place + ")" : place) + " * " + std::to_string(l.gpus) +
           "))\nCUDA_VISIBLE_DEVICES=${GPUS:-$(seq -s, \"$first\" $((first + " + std::to_string(l.gpus - 1) +
           ")))}\nexport CUDA_VISIBLE_DEVICES\n";
  }
  return out + "\n";
}

std::string addresses_function() {
  return "# Addresses of a pool's instances; hosts from $WORKER_HOSTS, $PREFILL_HOSTS or $DECODE_HOSTS, one an "
         "instance,\n"
         "# this machine where none is given.\n"
         "addresses() {  # POOL REPLICAS BASE_PORT PER_NODE\n"
         "  local variable=${1^^}_HOSTS i\n"
         "  local -a hosts\n"
         "  read -r -a hosts <<< \"${!variable:-}\"\n"
         "  for ((i = 0; i < $2; i++)); do\n"
         "    echo \"${hosts[i]:-127.0.0.1}:$(($3 + i % $4))\"\n"
         "  done\n"
         "}\n\n";
}

std::string addresses_call(const Request& request, const models::Pool& pool) {
  return "$(addresses " + std::string(models::name(pool.role)) + " " + std::to_string(pool.replicas) + " " +
         std::to_string(base_port(request.plan, pool.role)) + " " + std::to_string(layout(request, pool).per_node) +
         ")";
}

std::string pool_summary(const Request& request, const models::Pool& pool) {
  const models::Parallelism& p = pool.parallelism;
  std::string out = std::to_string(pool.replicas) + " instance" + (pool.replicas == 1 ? "" : "s") + " of " +
                    std::to_string(p.gpus()) + " x " + request.system(pool).gpu + ", tp " + std::to_string(p.tp);
  if (p.pp > 1) out += ", pp " + std::to_string(p.pp);
  if (p.attention_dp > 1) out += ", attention DP " + std::to_string(p.attention_dp);
  if (p.ep > 1) out += ", ep " + std::to_string(p.ep);
  const int nodes = layout(request, pool).nodes;
  return nodes > 1 ? out + ", " + std::to_string(nodes) + " nodes each" : out;
}

}  // namespace drydock::generators
