#pragma once
// Which GPU holds which experts of a mixture of experts, how uneven that leaves them, and how to even it out.
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"

namespace drydock::scheduler {

inline constexpr int kMaxExperts = 4096;
inline constexpr int kMaxMoeLayers = 1024;

// [layers][experts]: how often each expert is chosen, in any unit; not negative.
using ExpertWeights = std::vector<std::vector<double>>;

// rank^-exponent, the ranks dealt to experts anew in each layer by `seed`; exponent 0 is an even load.
// Throws core::Error when layers or experts are out of bounds or the exponent is not from 0 to 10.
ExpertWeights power_law(int layers, int experts, double exponent, uint64_t seed);

// Reads {"layers": [[count per expert], ...]}, one row a layer or one row for all of them.
// Throws core::Error naming `origin` and the field when the shape is not `layers` x `experts`, a count is negative or
// not a number, or a row has no count above 0.
ExpertWeights expert_histogram(const core::Json& json, const std::string& origin, int layers, int experts);
ExpertWeights read_expert_histogram(const std::filesystem::path& file, int layers, int experts);

// What experts are spread over. `replicas` are the slots of all GPUs together; a group's experts stay on one node.
struct ExpertCluster {
  int replicas = 0, groups = 1, nodes = 1, gpus = 1;
};

// Slots [g x replicas / gpus, (g + 1) x replicas / gpus) are those of GPU g.
struct LayerPlacement {
  std::vector<int> expert_of_slot;      // (replicas)
  std::vector<int> replicas_of_expert;  // (experts)
};

// Experts in order, no replicas: expert i on GPU i / (experts / gpus). Throws core::Error unless gpus divides experts.
LayerPlacement contiguous_placement(int experts, int gpus);

// DeepSeek's EPLB (github.com/deepseek-ai/EPLB): groups to nodes, replicas of the experts with most load a replica
// within each node, replicas to GPUs; hierarchical when nodes divides groups, else as if groups = nodes = 1. Equal
// loads: lowest index first. One placement a layer.
// Throws core::Error unless experts <= replicas, gpus divides replicas, groups divides experts, nodes divides gpus,
// all are positive, and weights are rows of one length, finite and not negative.
std::vector<LayerPlacement> rebalance(const ExpertWeights& weights, const ExpertCluster& cluster);

// Load of each GPU when an expert's tokens are spread evenly over its replicas; in the unit of `weights`.
std::vector<double> gpu_loads(std::span<const double> weights, const LayerPlacement& placement, int gpus);

// (max - mean) / mean; 0 when there is no load.
double imbalance(std::span<const double> loads);

// Expected load of a step's busiest GPU over the mean GPU's, >= 1, when each of `tokens` tokens chooses `top_k`
// different experts, drawn one after another with chances in proportion to `weights`, and each choice one of the
// expert's replicas evenly at random. Covers both the lasting imbalance of the placement and the noise of few tokens;
// the derivation is at the definition. 1 when tokens is 0. Takes some 1000 exponentials a GPU: tabulate it by tokens.
// Throws core::Error when fewer than top_k experts have weight, or top_k < 1 or tokens < 0.
double expected_busiest_share(std::span<const double> weights, const LayerPlacement& placement, int gpus, int top_k,
                              int64_t tokens);

// One expert's weights copied into one slot.
struct ReplicaMove {
  int layer = 0, slot = 0, expert = 0;
};

struct BalancerConfig {
  ExpertCluster cluster;
  int interval_steps = 100;     // between two looks at the load
  int moves_per_step = 8;       // copies that fit beside one step
  double newest_weight = 0.2;   // of the newest interval in the moving average, in (0, 1]
  double bytes_per_expert = 0;  // of one expert of one layer
};

// Rebalances while serving, as TensorRT-LLM's online EPLB does: statistics each step, a new placement each interval,
// then copies layer by layer, a few between two steps. A layer's placement changes when its last copy is in, so every
// expert has a replica at all times. A layer is left alone when EPLB would not make it more even, and a plan that is
// under way is finished before the next is made.
class OnlineBalancer {
 public:
  // Starts evenly: contiguous without replicas, else EPLB for equal weights. Throws core::Error as rebalance does, or
  // when a field of `config` is out of range.
  OnlineBalancer(const BalancerConfig& config, int layers, int experts);

  // One step's tokens for each expert: (layers, experts), row-major. Returns the copies to make before the next step,
  // valid until then. Throws core::Error when `tokens` has another size.
  std::span<const ReplicaMove> step(std::span<const int64_t> tokens);

  const std::vector<LayerPlacement>& placements() const { return placements_; }
  const ExpertWeights& average() const { return average_; }  // tokens an interval; empty before the first
  double bytes(std::span<const ReplicaMove> moves) const {
    return static_cast<double>(moves.size()) * config_.bytes_per_expert;
  }
  double moved_bytes() const { return moved_bytes_; }  // by all moves so far

 private:
  void fold_interval();
  void plan();
  void queue_layer(int layer, LayerPlacement target);

  BalancerConfig config_;
  int layers_, experts_, steps_ = 0;
  std::vector<LayerPlacement> placements_, targets_;
  ExpertWeights interval_, average_;
  std::vector<ReplicaMove> pending_;  // in order of layers
  size_t done_ = 0;                   // of pending_
  double moved_bytes_ = 0;
};

}  // namespace drydock::scheduler
