#pragma once
// The launch files of an engine, for its own target and for those that start it otherwise (Slurm).
#include <string>
#include <vector>

#include "generators/target.h"

namespace drydock::generators {

// A script for each role, the engine's YAML where it has one, and a router where requests need one; in `folder`.
// Throws core::Error when the plan was made for another engine, or the engine can't run it.
std::vector<OutputFile> vllm_files(const Request& request, const std::string& folder);
std::vector<OutputFile> sglang_files(const Request& request, const std::string& folder);
std::vector<OutputFile> trtllm_files(const Request& request, const std::string& folder);

// Throws core::Error unless the plan was made for `backend`, whose scheduling was simulated.
void check_backend(const Request& request, models::Backend backend);

extern const Target kVllm, kSglang, kTrtllm;

}  // namespace drydock::generators
