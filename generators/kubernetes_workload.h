#pragma once
// The bundled runtime's processes as Kubernetes workloads. A worker is told which one it is by its pod's ordinal, so
// workers of one node are a StatefulSet and those of several a LeaderWorkerSet (leaderworkerset.x-k8s.io/v1); the
// router keeps nothing and is a Deployment.
#include <string>
#include <vector>

#include "core/json.h"
#include "generators/target.h"

namespace drydock::generators {

std::string runtime_router_name(const Request& request);
std::string runtime_pool_name(const Request& request, models::Role role);
std::string runtime_config_name(const Request& request);  // of the ConfigMap
std::string runtime_claim_name(const Request& request);   // of the model's volume

// Replicas that autoscaling may reach: --set max-replicas, or twice the plan's.
int most_replicas(const Request& request, const models::Pool& pool);

std::vector<core::Json> runtime_router(const Request& request);                             // Deployment and Service
std::vector<core::Json> runtime_workers(const Request& request, const models::Pool& pool);  // and their Service

}  // namespace drydock::generators
