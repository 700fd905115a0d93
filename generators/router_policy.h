#pragma once
// The plan's router policy in the words of the engines' routers.
#include <string>

#include "generators/target.h"

namespace drydock::generators {

// --set router-policy, else the nearest that vllm-router and sglang-router both have: neither knows of outstanding
// tokens, so that the least of them becomes the less loaded of two.
std::string router_policy(const Request& request);

}  // namespace drydock::generators
