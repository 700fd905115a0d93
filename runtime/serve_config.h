#pragma once
// What is to be served: a plan.json, or the runtime.json that was made from one.
#include <filesystem>
#include <string>

#include "models/plan.h"

namespace drydock::runtime {

struct ServeConfig {
  models::Plan plan;
  std::string engine = "emulated";            // "emulated", "cpu" or "cuda"
  std::string draft_model_path;               // folder of the model that drafts; empty: none
  std::string secret_env = "DRYDOCK_SECRET";  // environment variable with the secret of the workers' ports
};

// Throws core::Error naming file and field. `origin` is the file's name.
ServeConfig parse_serve_config(std::string_view json, std::string_view origin);
ServeConfig read_serve_config(const std::filesystem::path& file);

}  // namespace drydock::runtime
