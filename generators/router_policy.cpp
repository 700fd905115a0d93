#include "generators/router_policy.h"

namespace drydock::generators {

std::string router_policy(const Request& request) {
  const std::string& policy = request.plan.router_policy;
  return request.set("router-policy", policy == "round_robin" ? "round_robin"
                                      : policy == "kv_aware"  ? "cache_aware"
                                                              : "power_of_two");
}

}  // namespace drydock::generators
