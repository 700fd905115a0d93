#include "cli/generated_files.h"

#include <algorithm>

#include "cli/planner_profile.h"
#include "configurator/predict.h"
#include "core/error.h"
#include "generators/dynamo_planner.h"
#include "generators/text.h"

namespace drydock::cli {

std::map<std::string, std::string> parse_settings(const std::vector<std::string>& typed) {
  std::map<std::string, std::string> out;
  for (const std::string& text : typed) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0)
      throw core::Error("--set '" + text.substr(0, 60) + "': want key=value; drydock generate --list names the keys");
    if (!out.emplace(text.substr(0, equals), text.substr(equals + 1)).second)
      throw core::Error("--set " + text.substr(0, std::min<size_t>(equals, 60)) + ": is given twice");
  }
  return out;
}

std::vector<std::string> parse_targets(const std::vector<std::string>& typed) {
  std::vector<std::string> out;
  for (const std::string& text : typed)
    for (size_t at = 0; at <= text.size();) {
      const size_t end = std::min(text.find(',', at), text.size());
      const std::string name = text.substr(at, end - at);
      generators::target(name);
      if (std::find(out.begin(), out.end(), name) == out.end()) out.push_back(name);
      at = end + 1;
    }
  return out;
}

generators::Request file_request(const models::Plan& plan, configurator::Resources& resources,
                                 const std::map<std::string, std::string>& settings,
                                 const std::vector<std::string>& targets, const std::string& plan_file) {
  const models::Architecture& architecture = resources.model(plan.model);
  generators::Request request{plan, architecture, {}, settings, "", DRYDOCK_VERSION, {}, 0};
  for (const models::Pool& pool : plan.pools) request.systems[pool.system] = resources.system(pool.system);
  request.precision = configurator::deployed_precision(architecture, plan.precision, plan.kv_precision, plan.backend,
                                                       resources.system(plan.pools.front().system).hardware);
  request.memory_fraction = resources.backend(plan.backend).memory_fraction;
  std::string list;
  for (const std::string& name : targets) list += (list.empty() ? "" : ",") + name;
  request.command = "drydock generate --plan " + generators::shell_word(plan_file) + " --target " + list;
  for (const auto& [key, value] : settings) request.command += " --set " + generators::shell_word(key + "=" + value);
  const bool dynamo = std::find(targets.begin(), targets.end(), "dynamo") != targets.end();
  if (dynamo && generators::wants_planner(request))
    request.planner_profile = std::make_shared<const generators::PlannerProfile>(planner_profile(plan, resources));
  return request;
}

}  // namespace drydock::cli
