#pragma once
// How unevenly a mixture of experts' tokens meet the GPUs of an instance, with and without EPLB.
#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "models/architecture.h"
#include "models/plan.h"
#include "models/system.h"
#include "scheduler/expert_placement.h"

namespace drydock::simulator {

// Of one pool; safe to ask from many threads. Experts lie contiguously, or with slots as DeepSeek's EPLB places them:
// hierarchically where the model's expert groups spread evenly over the NVLink domains that the instance spans.
class ExpertLoad {
 public:
  // `where` starts errors: what gave `experts`. Throws core::Error when the model has no experts, the histogram can't
  // be read or does not fit the model, or the slots do not fit experts and GPUs.
  ExpertLoad(const models::Experts& experts, const models::Architecture& architecture,
             const models::Parallelism& parallelism, const models::System& system, const std::string& where);

  // Expected load of the busiest of a layer's GPUs over the mean one, >= 1, when `tokens` tokens enter the group: the
  // mean over at most kSampledLayers layers, linear between powers of two.
  double busiest_share(double tokens) const;
  // (max - mean) / mean of the GPUs' loads over many tokens, the mean over layers: contiguous, and as placed here.
  double imbalance_before() const { return before_; }
  double imbalance_after() const { return after_; }
  int slots() const { return slots_; }  // of all GPUs together; as many as experts when none were asked for
  int experts() const { return experts_; }
  int top_k() const { return top_k_; }
  const scheduler::ExpertWeights& weights() const { return weights_; }  // [MoE layers][experts]
  const std::vector<scheduler::LayerPlacement>& placements() const { return placements_; }
  const scheduler::ExpertCluster& cluster() const { return cluster_; }  // that the placements were made for
  // {"layers": [[expert of slot 0, ...], ...]}, slots in order of GPUs.
  std::string placement_json() const;

 private:
  static constexpr int kSampledLayers = 8, kLevels = 24;
  double share_at(size_t level) const;

  int experts_, top_k_ = 1, gpus_ = 1, slots_ = 0;
  double before_ = 0, after_ = 0;
  scheduler::ExpertCluster cluster_;
  scheduler::ExpertWeights weights_;
  std::vector<scheduler::LayerPlacement> placements_;
  mutable std::mutex mutex_;
  mutable std::array<double, kLevels> shares_{};  // at 2^level tokens; 0: not asked yet
};

// nullptr when the pool's load is even: no skew or histogram, or no expert parallelism.
std::shared_ptr<const ExpertLoad> expert_load(const models::Experts& experts, const models::Architecture& architecture,
                                              const models::Parallelism& parallelism, const models::System& system,
                                              const std::string& where);

// Why slots can't be spread over such a pool, one line; nullopt when they can or nothing is to be spread.
std::optional<std::string> why_no_slots(const models::Experts& experts, const models::Parallelism& parallelism);

// Checks what does not depend on a pool. Throws core::Error, starting with `where`.
void check_experts(const models::Experts& experts, const models::Architecture& architecture, const std::string& where);

}  // namespace drydock::simulator
