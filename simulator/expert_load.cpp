#include "simulator/expert_load.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/json.h"

namespace drydock::simulator {
namespace {

constexpr uint64_t kSeed = 1;  // of the experts' ranks in each layer

struct Mixture {
  const models::Ffn* ffn = nullptr;  // nullptr: no experts
  int layers = 0;
};

Mixture mixture_of(const models::Architecture& architecture) {
  Mixture out;
  for (const uint8_t kind : architecture.layer_kinds) {
    const auto& ffn = architecture.kinds[kind].ffn;
    if (!ffn || !ffn->is_moe()) continue;
    if (!out.ffn) out.ffn = &*ffn;
    ++out.layers;
  }
  return out;
}

scheduler::ExpertWeights weights_of(const models::Experts& experts, const Mixture& mixture, const std::string& where) {
  const int count = static_cast<int>(mixture.ffn->experts);
  if (experts.histogram.empty()) return scheduler::power_law(mixture.layers, count, *experts.skew, kSeed);
  auto weights = scheduler::read_expert_histogram(experts.histogram, mixture.layers, count);
  for (const auto& row : weights)
    if (std::count_if(row.begin(), row.end(), [](double w) { return w > 0; }) < mixture.ffn->top_k)
      throw core::Error(where + ": " + experts.histogram + ": a layer has fewer experts with tokens than the " +
                        std::to_string(mixture.ffn->top_k) + " that each token uses");
  return weights;
}

// NVLink domains (or nodes, without NVLink) that the GPUs of a layer span, where experts' ranks spread evenly over
// them.
int domains(const models::Parallelism& p, const models::System& system) {
  const core::Hardware& h = system.hardware;
  const int domain = std::max(1, h.nvlink_bytes_per_s > 0 ? h.nvlink_domain : h.gpus_per_node);
  const int spanned = (p.tp * p.attention_dp + domain - 1) / domain;
  return p.ep % spanned == 0 ? spanned : 1;
}

double mean_imbalance(const scheduler::ExpertWeights& weights, const std::vector<scheduler::LayerPlacement>& placements,
                      int gpus) {
  double sum = 0;
  for (size_t layer = 0; layer < weights.size(); ++layer)
    sum += scheduler::imbalance(scheduler::gpu_loads(weights[layer], placements[layer], gpus));
  return sum / static_cast<double>(weights.size());
}

}  // namespace

ExpertLoad::ExpertLoad(const models::Experts& experts, const models::Architecture& architecture,
                       const models::Parallelism& parallelism, const models::System& system, const std::string& where)
    : experts_(0), gpus_(parallelism.ep) {
  check_experts(experts, architecture, where);
  if (const auto reason = why_no_slots(experts, parallelism)) throw core::Error(where + ": " + *reason);
  const Mixture mixture = mixture_of(architecture);
  experts_ = static_cast<int>(mixture.ffn->experts);
  top_k_ = static_cast<int>(mixture.ffn->top_k);
  slots_ = experts.slots > 0 ? experts.slots : experts_;
  weights_ = weights_of(experts, mixture, where);
  const std::vector<scheduler::LayerPlacement> plain(weights_.size(), scheduler::contiguous_placement(experts_, gpus_));
  placements_ = plain;
  if (experts.slots > 0) {
    const int nodes = domains(parallelism, system), groups = std::max(1, static_cast<int>(mixture.ffn->expert_groups));
    // A node needs room for all its groups' experts, and slots of its own.
    const bool apart = nodes > 1 && groups % nodes == 0 && slots_ % nodes == 0;
    cluster_ = {slots_, apart ? groups : 1, apart ? nodes : 1, gpus_};
    placements_ = scheduler::rebalance(weights_, cluster_);
  } else {
    cluster_ = {slots_, 1, 1, gpus_};
  }
  before_ = mean_imbalance(weights_, plain, gpus_);
  after_ = mean_imbalance(weights_, placements_, gpus_);
}

double ExpertLoad::share_at(size_t level) const {
  const std::scoped_lock lock(mutex_);
  double& share = shares_[level];
  if (share > 0) return share;
  const size_t sampled = std::min<size_t>(weights_.size(), kSampledLayers);
  double sum = 0;
  for (size_t i = 0; i < sampled; ++i) {
    const size_t layer = i * weights_.size() / sampled;
    sum += scheduler::expected_busiest_share(weights_[layer], placements_[layer], gpus_, top_k_, int64_t{1} << level);
  }
  return share = sum / static_cast<double>(sampled);
}

double ExpertLoad::busiest_share(double tokens) const {
  if (tokens <= 1) return share_at(0);
  const double at = std::min(std::log2(tokens), kLevels - 1.0);
  const auto level = std::min(static_cast<size_t>(at), static_cast<size_t>(kLevels - 2));
  const double low = std::exp2(static_cast<double>(level)), share = std::clamp(tokens / low - 1, 0.0, 1.0);
  const double a = share_at(level);
  return share > 0 ? a + (share_at(level + 1) - a) * share : a;
}

std::string ExpertLoad::placement_json() const {
  core::Json layers = core::Json::array();
  for (const scheduler::LayerPlacement& layer : placements_) layers.push_back(layer.expert_of_slot);
  return core::Json{{"layers", layers}}.dump() + "\n";
}

std::shared_ptr<const ExpertLoad> expert_load(const models::Experts& experts, const models::Architecture& architecture,
                                              const models::Parallelism& parallelism, const models::System& system,
                                              const std::string& where) {
  if (!experts.uneven() || parallelism.ep <= 1) return nullptr;
  return std::make_shared<const ExpertLoad>(experts, architecture, parallelism, system, where);
}

std::optional<std::string> why_no_slots(const models::Experts& experts, const models::Parallelism& parallelism) {
  if (experts.slots == 0 || parallelism.ep <= 1 || experts.slots % parallelism.ep == 0) return std::nullopt;
  return std::to_string(experts.slots) + " expert slots do not spread evenly over " + std::to_string(parallelism.ep) +
         " GPUs";
}

void check_experts(const models::Experts& experts, const models::Architecture& architecture, const std::string& where) {
  if (!experts.uneven()) return;
  const Mixture mixture = mixture_of(architecture);
  if (!mixture.ffn) throw core::Error(where + ": " + architecture.name + " has no experts");
  if (experts.slots > 0 && experts.slots < mixture.ffn->experts)
    throw core::Error(where + ": " + std::to_string(experts.slots) + " slots can't hold the " +
                      std::to_string(mixture.ffn->experts) + " experts of " + architecture.name);
  weights_of(experts, mixture, where);
}

}  // namespace drydock::simulator
