#pragma once
// What Dynamo's planner wants to know of the engines: prompt times by length, token times by KV use and context. Format
// and units are those of the profiler of Dynamo 1.x (components/src/dynamo/profiler/utils/profile_{prefill,decode}.py
// write it, planner/core/throughput/interpolation.py reads it).
#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"

namespace drydock::generators {

// Of one instance each. The prefill vectors are parallel, with prompt lengths rising; so are the decode vectors, in
// any order.
struct PlannerProfile {
  std::vector<int64_t> prompt_tokens;
  std::vector<double> ttft_ms;                  // of a prompt alone
  std::vector<double> prompt_tokens_per_s_gpu;  // prompts one after another, on every attention-DP rank
  std::vector<double> kv_usage;                 // share of max_kv_tokens in use, 0 to 1
  std::vector<double> context_tokens;           // mean of a sequence while it decodes
  std::vector<double> itl_ms;
  std::vector<double> output_tokens_per_s_gpu;
  int64_t max_kv_tokens = 0;  // over all attention-DP ranks
};

// prefill_raw_data.json and decode_raw_data.json, which the planner reads from its --profile-results-dir.
core::Json planner_prefill_json(const PlannerProfile& profile);
core::Json planner_decode_json(const PlannerProfile& profile);
// selected_{prefill,decode}_interpolation/raw_data.npz: what it looks for first.
std::string planner_prefill_npz(const PlannerProfile& profile);
std::string planner_decode_npz(const PlannerProfile& profile);

}  // namespace drydock::generators
