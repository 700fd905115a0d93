#pragma once
// How a pool's engine is started, for the platforms that start it themselves.
#include <string>
#include <vector>

#include "core/json.h"
#include "generators/target.h"

namespace drydock::generators {

// Under whom the engine runs: its own HTTP server, or a worker of Dynamo's, which takes the same engine flags but has
// its own words for prefill and decode.
enum class Host { own_server, dynamo };

struct EngineLaunch {
  std::string model;               // folder or name on the hub
  std::vector<std::string> flags;  // after the model; without host and port
  core::Json config;               // TensorRT-LLM: options of the LLM API, for --extra-engine-args; else null
};
// Throws core::Error when the backend can't express the plan.
EngineLaunch engine_launch(const Request& request, const models::Pool& pool, Host host);

}  // namespace drydock::generators
