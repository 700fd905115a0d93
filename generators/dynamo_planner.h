#pragma once
// Dynamo's planner: whether a plan wants one, its configuration, and the map with its profiling data.
#include <string>
#include <vector>

#include "core/json.h"
#include "generators/target.h"

namespace drydock::generators {

inline constexpr char kPlannerDataFolder[] = "/workspace/profiling_results";

// --set planner=on|off; without, on where the plan has targets of TTFT and TPOT. Throws core::Error when it is on and
// they are missing, as the planner scales by both.
bool wants_planner(const Request& request);
// PlannerConfig, by the names that Dynamo 1.0 to 1.3 know.
core::Json planner_config(const Request& request);
std::string planner_data_name(const Request& request);
core::Json planner_data(const Request& request);                     // ConfigMap; only with request.planner_profile
std::vector<OutputFile> planner_data_files(const Request& request);  // NPZ

}  // namespace drydock::generators
