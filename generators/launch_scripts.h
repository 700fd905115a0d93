#pragma once
// What the shell scripts of all engines share: where instances lie, their ports, and the lines that every script has.
#include <string>
#include <string_view>
#include <vector>

#include "generators/target.h"

namespace drydock::generators {

// How one pool's instances lie on nodes.
struct Layout {
  int gpus = 1;           // of an instance
  int gpus_per_node = 8;  // of its system
  int nodes = 1;          // that an instance spans
  int per_node = 1;       // instances that share a node
  int first_node = 0;     // of the pool's first instance, counted over all pools
  int first_gpu = 0;      // on that node: pools that fit one node together share it
  int total_nodes = 1;    // of the pool
};
Layout layout(const Request& request, const models::Pool& pool);

// Whether requests need a router: several instances, or prefill apart from decode.
bool has_router(const models::Plan& plan);
// Of the first instance on a node; its neighbours count up.
int base_port(const models::Plan& plan, models::Role role);
inline constexpr int kRouterPort = 8000;
inline constexpr int kJoinPort = 8100;  // where the bundled runtime's workers join its router

// "#!/usr/bin/env bash", header, what it is and how it is used, and strict mode.
std::string script_head(const Request& request, const std::vector<std::string>& about);
// REPLICA, PORT, and CUDA_VISIBLE_DEVICES (from $GPUS where given: Slurm sets the former itself); when an instance
// spans nodes and its processes are told of one another by flags (`ranked`), NODE_RANK and HEAD_ADDR.
std::string instance_lines(const Request& request, const models::Pool& pool, bool ranked = true);
// A bash function `addresses POOL REPLICAS BASE_PORT PER_NODE` that prints host:port of a pool's instances, one a line,
// hosts from $WORKER_HOSTS, $PREFILL_HOSTS or $DECODE_HOSTS: those of the instances' first nodes, in order.
std::string addresses_function();
// "$(addresses decode 4 8300 2)".
std::string addresses_call(const Request& request, const models::Pool& pool);

// "8 x NVIDIA H200 SXM, tp 8": for a script's comment.
std::string pool_summary(const Request& request, const models::Pool& pool);

}  // namespace drydock::generators
