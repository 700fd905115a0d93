#include <array>

#include "core/error.h"
#include "core/json.h"
#include "core/text.h"
#include "generators/alerts_target.h"
#include "generators/bench_target.h"
#include "generators/drydock_target.h"
#include "generators/dynamo_target.h"
#include "generators/engine_files.h"
#include "generators/grafana_target.h"
#include "generators/kserve_target.h"
#include "generators/kubernetes_target.h"
#include "generators/llmd_target.h"
#include "generators/slurm_target.h"
#include "generators/target.h"
#include "generators/text.h"
#include "generators/triton_target.h"

namespace drydock::generators {

std::span<const Target> targets() {
  static const std::array kAll = {
      kDrydock, kVllm,       kSglang, kTrtllm,  kDynamo, kTriton, kKserve,
      kLlmd,    kKubernetes, kSlurm,  kGrafana, kAlerts, kBench,
  };
  return kAll;
}

const Target& target(std::string_view name) {
  std::vector<std::string> names;
  std::string list;
  for (const Target& t : targets()) {
    if (t.name == name) return t;
    names.emplace_back(t.name);
    list += (list.empty() ? "" : ", ") + names.back();
  }
  throw core::Error("target '" + std::string(name.substr(0, 60)) + "' is not known: want one of " + list +
                    core::suggestion(name, names));
}

std::string Request::set(const std::string& key, std::string_view otherwise) const {
  const auto found = settings.find(key);
  return found == settings.end() ? std::string(otherwise) : found->second;
}

const models::System& Request::system(const models::Pool& pool) const {
  const auto found = systems.find(pool.system);
  if (found == systems.end())
    throw core::Error("pool '" + std::string(models::name(pool.role)) + "': system '" + pool.system + "' is not known");
  return found->second;
}

std::string plan_hash(const models::Plan& plan) {
  models::Plan asked = plan;
  asked.prediction.reset();
  constexpr int kDigits = 16;
  return hex(fnv1a(models::to_json(asked)), kDigits);
}

std::string header(const Request& request, std::string_view comment) {
  std::string out = std::string(comment) + "Made by drydock " + comment_text(request.version) + " from plan " +
                    plan_hash(request.plan) + "\n";
  if (!request.command.empty()) out += std::string(comment) + comment_text(request.command) + "\n";
  return out;
}

}  // namespace drydock::generators
