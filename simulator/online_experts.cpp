#include "simulator/online_experts.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "core/random.h"

namespace drydock::simulator {
namespace {

using scheduler::ExpertWeights;
using scheduler::LayerPlacement;

constexpr size_t kDriftLayers = 8;

ExpertWeights sampled_layers(const ExpertWeights& all) {
  const size_t count = std::min(all.size(), kDriftLayers);
  ExpertWeights out;
  for (size_t i = 0; i < count; ++i) out.push_back(all[i * all.size() / count]);
  return out;
}

double mean_over_layers(const ExpertWeights& weights, const std::vector<LayerPlacement>& placements, int gpus) {
  double sum = 0;
  for (size_t layer = 0; layer < weights.size(); ++layer)
    sum += scheduler::imbalance(scheduler::gpu_loads(weights[layer], placements[layer], gpus));
  return sum / static_cast<double>(weights.size());
}

// Popularity that wanders: pairs of a layer's experts trade theirs.
class Popularity {
 public:
  Popularity(ExpertWeights weights, const ExpertDrift& drift)
      : weights_(std::move(weights)), trades_(drift.share_per_1000_steps / 1000 / 2), random_(drift.seed) {}

  // True: it is another than a step ago.
  bool step() {
    bool changed = false;
    for (auto& row : weights_) {
      due_ += trades_ * static_cast<double>(row.size());
      for (; due_ >= 1; due_ -= 1) {
        const int64_t last = static_cast<int64_t>(row.size()) - 1;
        std::swap(row[static_cast<size_t>(random_.integer(0, last))],
                  row[static_cast<size_t>(random_.integer(0, last))]);
        changed = true;
      }
    }
    return changed;
  }

  // Tokens that each expert gets of `choices` a layer: their number varies as a Poisson variable's does.
  void count(double choices, std::vector<int64_t>& tokens) {
    tokens.clear();
    for (const auto& row : weights_) {
      const double all = std::accumulate(row.begin(), row.end(), 0.0);
      for (const double weight : row) {
        const double mean = choices * weight / all;
        tokens.push_back(std::max<int64_t>(0, std::llround(mean + std::sqrt(mean) * random_.normal())));
      }
    }
  }

  const ExpertWeights& weights() const { return weights_; }

 private:
  ExpertWeights weights_;
  double trades_, due_ = 0;
  core::Random random_;
};

// Copies that the GPU which gets most of them receives.
int64_t most_received(std::span<const scheduler::ReplicaMove> moves, const scheduler::ExpertCluster& cluster) {
  std::vector<int64_t> received(static_cast<size_t>(cluster.gpus));
  for (const auto& move : moves) ++received[static_cast<size_t>(move.slot / (cluster.replicas / cluster.gpus))];
  return *std::max_element(received.begin(), received.end());
}

void check(const ExpertDrift& drift) {
  if (drift.steps < 1 || drift.steps > 1'000'000) throw core::Error("steps: want 1 to 1000000");
  if (drift.tokens < 1) throw core::Error("tokens: want 1 or more");
  if (!(drift.share_per_1000_steps >= 0 && drift.share_per_1000_steps <= 10))
    throw core::Error("drift: want a share from 0 to 10 in 1000 steps");
}

}  // namespace

ExpertBalance drift_experts(const ExpertLoad& load, const scheduler::BalancerConfig& config, const ExpertDrift& drift) {
  check(drift);
  const int gpus = config.cluster.gpus;
  Popularity popularity(sampled_layers(load.weights()), drift);
  const std::vector<LayerPlacement> plain(popularity.weights().size(),
                                          scheduler::contiguous_placement(load.experts(), gpus));
  const std::vector<LayerPlacement> fixed = scheduler::rebalance(popularity.weights(), config.cluster);
  std::vector<LayerPlacement> oracle = fixed;
  const double scale = static_cast<double>(load.weights().size()) / static_cast<double>(plain.size());
  scheduler::BalancerConfig sampled = config;  // with its share of the copies that fit beside a step
  sampled.moves_per_step = std::max(1, static_cast<int>(std::lround(config.moves_per_step / scale)));
  scheduler::OnlineBalancer balancer(sampled, static_cast<int>(plain.size()), load.experts());
  ExpertBalance out;
  std::vector<int64_t> tokens;
  double received = 0, worst = 0;
  for (int step = 0; step < drift.steps; ++step) {
    if (popularity.step()) oracle = scheduler::rebalance(popularity.weights(), config.cluster);
    out.contiguous += mean_over_layers(popularity.weights(), plain, gpus);
    out.fixed += mean_over_layers(popularity.weights(), fixed, gpus);
    out.online += mean_over_layers(popularity.weights(), balancer.placements(), gpus);
    out.oracle += mean_over_layers(popularity.weights(), oracle, gpus);
    popularity.count(static_cast<double>(drift.tokens) * load.top_k(), tokens);
    const auto moves = balancer.step(tokens);
    out.moves += static_cast<int64_t>(moves.size());
    if (moves.empty()) continue;
    const double bytes = static_cast<double>(most_received(moves, config.cluster)) * config.bytes_per_expert;
    received += bytes;
    worst = std::max(worst, bytes);
  }
  for (double* mean : {&out.contiguous, &out.fixed, &out.online, &out.oracle}) *mean /= drift.steps;
  out.moved_bytes = balancer.moved_bytes() * scale;
  out.moves = std::llround(static_cast<double>(out.moves) * scale);
  out.bytes_per_step = received * scale / drift.steps;
  out.worst_bytes_per_step = worst * scale;
  return out;
}

}  // namespace drydock::simulator
