#pragma once
// What the commands that write a plan's files share: the request made of a plan, and the settings as typed.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "configurator/resources.h"
#include "generators/target.h"

namespace drydock::cli {

// "key=value" each; throws core::Error naming --set on one without '=' or given twice.
std::map<std::string, std::string> parse_settings(const std::vector<std::string>& typed);
// "vllm,bench" and further ones; throws core::Error on an unknown one.
std::vector<std::string> parse_targets(const std::vector<std::string>& typed);

// What generators are told: models, systems, formats and memory as `resources` has them. References `plan` and
// `resources`, which must outlive it.
generators::Request file_request(const models::Plan& plan, configurator::Resources& resources,
                                 const std::map<std::string, std::string>& settings,
                                 const std::vector<std::string>& targets, const std::string& plan_file);

}  // namespace drydock::cli
