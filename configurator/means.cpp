#include "configurator/means.h"

#include <map>
#include <tuple>

namespace drydock::configurator {
namespace {

// Whatever an engine of a plan depends on besides the figures.
using EngineKey = std::tuple<std::string, std::string, std::string, models::Backend, std::string, models::Parallelism,
                             int64_t, models::Role, std::string, models::PromptWaits, bool, bool>;

EngineKey key_of(const models::Plan& plan, const models::Pool& pool) {
  // Formats are those of the first pool's system; nothing else of another pool matters.
  return {plan.model + "\n" + plan.pools.front().system,
          plan.precision,
          plan.kv_precision,
          plan.backend,
          pool.system,
          pool.parallelism,
          pool.max_tokens,
          pool.role,
          plan.speculative,
          pool.waits,
          pool.two_batch_overlap,
          pool.shared_expert_overlap};
}

}  // namespace

struct MeanPredictor::Shared {
  std::vector<const models::Plan*> plans;
  std::vector<simulator::Deployment> deployments;
  std::map<EngineKey, std::unique_ptr<simulator::Engine>> engines;
  std::vector<std::unique_ptr<simulator::Engine>> own;  // with expert loads from files
};

MeanPredictor::MeanPredictor(const std::vector<const models::Plan*>& plans, Resources& resources)
    : shared_(std::make_unique<Shared>()) {
  shared_->plans = plans;
  for (const models::Plan* plan : plans) {
    Instances made = instances_of(*plan, resources, Fit::assumed, nullptr, true);
    for (size_t i = 0; i < plan->pools.size(); ++i) {
      auto& engine =
          plan->experts.uneven() ? shared_->own.emplace_back() : shared_->engines[key_of(*plan, plan->pools[i])];
      if (!engine) engine = std::move(made.engines[i]);
      made.deployment.parts[i].engine = engine.get();
    }
    shared_->deployments.push_back(std::move(made.deployment));
  }
}
MeanPredictor::~MeanPredictor() = default;

void MeanPredictor::figures_changed() {
  for (const auto& [key, engine] : shared_->engines) engine->reprice();
  for (const auto& engine : shared_->own) engine->reprice();
}

std::optional<MeanPredictor::Means> MeanPredictor::of(size_t plan) const {
  simulator::LoadOptions options;
  options.bands = false;
  const auto served = simulator::serve(shared_->deployments[plan], shared_->plans[plan]->workload,
                                       targets_of(shared_->plans[plan]->slo), options);
  if (!served) return std::nullopt;
  return Means{served->ttft_ms.value, served->tpot_ms.value, served->outside_users};
}

}  // namespace drydock::configurator
