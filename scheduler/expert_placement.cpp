#include "scheduler/expert_placement.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "core/error.h"
#include "core/random.h"

namespace drydock::scheduler {
namespace {

using Numbers = std::vector<double>;

void need(bool good, const std::string& what) {
  if (!good) throw core::Error("experts: " + what);
}

std::string count(int value, const char* what) { return std::to_string(value) + " " + what; }

// Items to packs of equal item counts: heaviest first, each to the lightest pack with room. Returns for each item its
// pack x (items / packs) + its rank in the pack. With one item a pack, EPLB keeps the order.
std::vector<int> pack_evenly(const Numbers& weights, int packs) {
  const int items = static_cast<int>(weights.size()), room = items / packs;
  std::vector<int> order(weights.size()), place(weights.size());
  std::iota(order.begin(), order.end(), 0);
  if (room == 1) return order;
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return weights[static_cast<size_t>(a)] > weights[static_cast<size_t>(b)]; });
  Numbers load(static_cast<size_t>(packs));
  std::vector<int> used(static_cast<size_t>(packs));
  for (const int item : order) {
    size_t lightest = load.size();
    for (size_t pack = 0; pack < load.size(); ++pack)
      if (used[pack] < room && (lightest == load.size() || load[pack] < load[lightest])) lightest = pack;
    place[static_cast<size_t>(item)] = static_cast<int>(lightest) * room + used[lightest]++;
    load[lightest] += weights[static_cast<size_t>(item)];
  }
  return place;
}

std::vector<int> inverse(const std::vector<int>& permutation) {
  std::vector<int> out(permutation.size());
  for (size_t i = 0; i < out.size(); ++i) out[static_cast<size_t>(permutation[i])] = static_cast<int>(i);
  return out;
}

// The expert of each replica: one each, then one more of whichever has the most load a replica.
std::vector<int> replicate(const Numbers& weights, int replicas, std::vector<int>& counts) {
  std::vector<int> expert(weights.size());
  std::iota(expert.begin(), expert.end(), 0);
  counts.assign(weights.size(), 1);
  while (static_cast<int>(expert.size()) < replicas) {
    size_t most = 0;
    for (size_t i = 1; i < weights.size(); ++i)
      if (weights[i] / counts[i] > weights[most] / counts[most]) most = i;
    expert.push_back(static_cast<int>(most));
    ++counts[most];
  }
  return expert;
}

// Experts in the order in which nodes hold them: groups packed to nodes.
std::vector<int> experts_by_node(const Numbers& weights, int groups, int nodes) {
  const size_t size = weights.size() / static_cast<size_t>(groups);
  Numbers group_weights(static_cast<size_t>(groups));
  for (size_t i = 0; i < weights.size(); ++i) group_weights[i / size] += weights[i];
  std::vector<int> out;
  for (const int group : inverse(pack_evenly(group_weights, nodes)))
    for (size_t i = 0; i < size; ++i) out.push_back(group * static_cast<int>(size) + static_cast<int>(i));
  return out;
}

LayerPlacement rebalance_layer(const Numbers& weights, int replicas, int groups, int nodes, int gpus) {
  LayerPlacement out;
  out.replicas_of_expert.resize(weights.size());
  const std::vector<int> by_node = experts_by_node(weights, groups, nodes);
  const size_t on_node = weights.size() / static_cast<size_t>(nodes);
  for (size_t first = 0; first < weights.size(); first += on_node) {
    Numbers local, slot_weights;
    for (size_t i = 0; i < on_node; ++i) local.push_back(weights[static_cast<size_t>(by_node[first + i])]);
    std::vector<int> counts;
    const std::vector<int> replica = replicate(local, replicas / nodes, counts);
    for (const int i : replica) slot_weights.push_back(local[static_cast<size_t>(i)] / counts[static_cast<size_t>(i)]);
    for (const int slot : inverse(pack_evenly(slot_weights, gpus / nodes)))
      out.expert_of_slot.push_back(by_node[first + static_cast<size_t>(replica[static_cast<size_t>(slot)])]);
    for (size_t i = 0; i < on_node; ++i) out.replicas_of_expert[static_cast<size_t>(by_node[first + i])] = counts[i];
  }
  return out;
}

void check(const ExpertWeights& weights, const ExpertCluster& cluster) {
  const auto [replicas, groups, nodes, gpus] = cluster;
  need(replicas > 0 && groups > 0 && nodes > 0 && gpus > 0, "replicas, groups, nodes and GPUs must be at least 1");
  need(replicas % gpus == 0, count(replicas, "replicas do not spread evenly over ") + count(gpus, "GPUs"));
  need(gpus % nodes == 0, count(gpus, "GPUs do not spread evenly over ") + count(nodes, "nodes"));
  need(!weights.empty(), "no layer of weights");
  for (const Numbers& row : weights) {
    const int experts = static_cast<int>(std::min<size_t>(row.size(), kMaxExperts + 1));
    need(experts >= 1 && experts <= kMaxExperts, "want 1 to " + count(kMaxExperts, "experts a layer"));
    need(row.size() == weights[0].size(), "layers with different numbers of experts");
    need(experts <= replicas, count(replicas, "replicas cannot hold ") + count(experts, "experts"));
    need(experts % groups == 0, count(experts, "experts do not make ") + count(groups, "equal groups"));
    for (const double w : row) need(w >= 0 && std::isfinite(w), "a weight that is negative or not finite");
  }
}

// Chance of each expert to be among the top_k of one token. Drawing one by one in proportion to w is the same as taking
// the first arrivals of independent Poisson clocks of rates w; stopping the clocks at the time tau by which top_k have
// arrived on average, instead of at the k-th arrival, gives pi_i = 1 - exp(-w_i tau) (Rosen 1972, "Asymptotic theory
// for successive sampling", Ann. Math. Stat. 43). Newton's steps stay below tau, as the sum is concave.
Numbers inclusion(std::span<const double> weights, int top_k) {
  Numbers out(weights.size());
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  const bool all = std::count_if(weights.begin(), weights.end(), [](double w) { return w > 0; }) == top_k;
  if (all || top_k == 1) {  // both exact
    for (size_t i = 0; i < out.size(); ++i) out[i] = !all ? weights[i] / total : weights[i] > 0 ? 1 : 0;
    return out;
  }
  double tau = 0;
  for (int round = 0; round < 100; ++round) {
    double sum = 0, slope = 0;
    for (size_t i = 0; i < out.size(); ++i) {
      const double w = weights[i] / total;
      out[i] = -std::expm1(-w * tau);
      sum += out[i];
      slope += w * (1 - out[i]);
    }
    if (top_k - sum < 1e-12 * top_k || !(slope > 0)) break;
    tau += (top_k - sum) / slope;
  }
  return out;
}

struct Moments {
  double mean = 0, variance = 0;
};

// A GPU's load in a step. Of one token's choices, those of expert i land here with the share s_i of its replicas:
// variance pi_i s_i (1 - s_i) from the choice of replica, plus that of sum s_i I_i, where the indicators I repel each
// other, Cov(i, j) = -v_i v_j / d, v = pi (1 - pi), d = sum v (Hajek 1964, "Asymptotic theory of rejective sampling",
// Ann. Math. Stat. 35): sum s^2 v - (sum s v)^2 / d, 0 for one GPU with everything. The factor n / (n - 1), with
// n = d^2 / sum v^2, makes it exact for equal weights (the hypergeometric variance). Tokens are independent.
std::vector<Moments> load_moments(std::span<const double> pi, const LayerPlacement& placement, int gpus,
                                  int64_t tokens) {
  double d = 0, squares = 0;
  for (const double p : pi) {
    d += p * (1 - p);
    squares += p * (1 - p) * p * (1 - p);
  }
  const double finite = d * d > squares ? d * d / (d * d - squares) : 1;
  const size_t slots = placement.expert_of_slot.size() / static_cast<size_t>(gpus);
  std::vector<Moments> out;
  Numbers share(pi.size());
  for (size_t gpu = 0; gpu < static_cast<size_t>(gpus); ++gpu) {
    std::fill(share.begin(), share.end(), 0.0);
    for (size_t slot = gpu * slots; slot < (gpu + 1) * slots; ++slot) {
      const auto expert = static_cast<size_t>(placement.expert_of_slot[slot]);
      share[expert] += 1.0 / placement.replicas_of_expert[expert];
    }
    double mean = 0, of_replica = 0, of_expert = 0, repelled = 0;
    for (size_t i = 0; i < pi.size(); ++i) {
      const double v = pi[i] * (1 - pi[i]), s = share[i];
      mean += pi[i] * s;
      of_replica += pi[i] * s * (1 - s);
      of_expert += s * s * v;
      repelled += s * v;
    }
    if (d > 0) of_expert -= repelled * repelled / d;
    const auto n = static_cast<double>(tokens);
    out.push_back({n * mean, n * (of_replica + finite * std::max(0.0, of_expert))});
  }
  return out;
}

// Expected maximum of independent whole numbers >= 0: the sum over x of 1 - prod F(x). Each F is the member of the
// (a, b, 0) family - binomial, Poisson or negative binomial: P(x) = (a + b / x) P(x - 1) - with the given moments
// (Panjer 1981), which keeps the skew that few tokens have.
double expected_max_small(const std::vector<Moments>& loads, size_t most) {
  Numbers product(most + 1, 1.0);
  for (const auto& [mean, variance] : loads) {
    if (!(mean > 0)) continue;
    const double a = 1 - mean / variance, b = mean * (1 - a) - a;
    double log_p = std::abs(a) < 1e-9 ? -mean : std::log1p(-a) * (a + b) / a, below = std::exp(log_p);
    product[0] *= below;
    for (size_t x = 1; x <= most; ++x) {
      const double factor = a + b / static_cast<double>(x);
      log_p = factor > 0 ? log_p + std::log(factor) : -INFINITY;
      below += std::exp(log_p);
      product[x] *= std::min(1.0, below);
    }
  }
  double sum = 0;
  for (const double below : product) sum += 1 - below;
  return sum;
}

// The same for normal loads: low + the integral of 1 - prod F from low up, below which no load is.
double expected_max_large(const std::vector<Moments>& loads, double low, double high) {
  constexpr int kPoints = 1000;
  const double width = (high - low) / kPoints;
  double sum = 0;
  for (int i = 0; i < kPoints; ++i) {
    const double x = low + (i + 0.5) * width;
    double product = 1;
    for (const auto& [mean, variance] : loads)
      product *= variance > 0 ? std::erfc((mean - x) / std::sqrt(2 * variance)) / 2 : (x >= mean ? 1.0 : 0.0);
    sum += 1 - product;
  }
  return low + sum * width;
}

}  // namespace

ExpertWeights power_law(int layers, int experts, double exponent, uint64_t seed) {
  need(layers >= 1 && layers <= kMaxMoeLayers, "want 1 to " + count(kMaxMoeLayers, "layers"));
  need(experts >= 1 && experts <= kMaxExperts, "want 1 to " + count(kMaxExperts, "experts a layer"));
  need(exponent >= 0 && exponent <= 10, "the power law's exponent must be from 0 to 10");
  ExpertWeights out(static_cast<size_t>(layers));
  for (size_t layer = 0; layer < out.size(); ++layer) {
    core::Random random(seed, layer);
    for (int rank = 1; rank <= experts; ++rank) out[layer].push_back(std::pow(rank, -exponent));
    for (int i = experts - 1; i > 0; --i)
      std::swap(out[layer][static_cast<size_t>(i)], out[layer][static_cast<size_t>(random.integer(0, i))]);
  }
  return out;
}

ExpertWeights expert_histogram(const core::Json& json, const std::string& origin, int layers, int experts) {
  const core::Fields fields(json, origin);
  fields.only({"layers"});
  const core::Json& rows = fields.array("layers");
  if (rows.size() != 1 && rows.size() != static_cast<size_t>(layers))
    throw fields.error("layers", count(static_cast<int>(rows.size()), "rows; want 1 or ") + std::to_string(layers));
  ExpertWeights out;
  for (const core::Json& row : rows) {
    const std::string field = "layers[" + std::to_string(out.size()) + "]";
    if (!row.is_array() || row.size() != static_cast<size_t>(experts))
      throw fields.error(field, "want an array of " + count(experts, "counts"));
    Numbers counts;
    for (const core::Json& value : row) {
      if (!value.is_number() || !(value.get<double>() >= 0 && value.get<double>() <= 1e18))
        throw fields.error(field + "[" + std::to_string(counts.size()) + "]", "want a count from 0 to 1e18");
      counts.push_back(value.get<double>());
    }
    if (*std::max_element(counts.begin(), counts.end()) <= 0) throw fields.error(field, "no count is above 0");
    out.push_back(std::move(counts));
  }
  out.resize(static_cast<size_t>(layers), out[0]);
  return out;
}

ExpertWeights read_expert_histogram(const std::filesystem::path& file, int layers, int experts) {
  return expert_histogram(core::read_json(file), file.string(), layers, experts);
}

LayerPlacement contiguous_placement(int experts, int gpus) {
  need(gpus > 0 && experts > 0 && experts % gpus == 0,
       count(experts, "experts do not spread evenly over ") + count(gpus, "GPUs"));
  LayerPlacement out{std::vector<int>(static_cast<size_t>(experts)), std::vector<int>(static_cast<size_t>(experts), 1)};
  std::iota(out.expert_of_slot.begin(), out.expert_of_slot.end(), 0);
  return out;
}

std::vector<LayerPlacement> rebalance(const ExpertWeights& weights, const ExpertCluster& cluster) {
  check(weights, cluster);
  const bool hierarchical = cluster.groups % cluster.nodes == 0;
  std::vector<LayerPlacement> out;
  for (const Numbers& row : weights)
    out.push_back(rebalance_layer(row, cluster.replicas, hierarchical ? cluster.groups : 1,
                                  hierarchical ? cluster.nodes : 1, cluster.gpus));
  return out;
}

Numbers gpu_loads(std::span<const double> weights, const LayerPlacement& placement, int gpus) {
  Numbers out(static_cast<size_t>(gpus));
  const size_t slots = placement.expert_of_slot.size() / out.size();
  for (size_t slot = 0; slot < slots * out.size(); ++slot) {
    const auto expert = static_cast<size_t>(placement.expert_of_slot[slot]);
    out[slot / slots] += weights[expert] / placement.replicas_of_expert[expert];
  }
  return out;
}

double imbalance(std::span<const double> loads) {
  const double sum = std::accumulate(loads.begin(), loads.end(), 0.0);
  if (!(sum > 0)) return 0;
  return *std::max_element(loads.begin(), loads.end()) * static_cast<double>(loads.size()) / sum - 1;
}

// The loads of GPUs add up to tokens x top_k, so they are not independent. Normal loads of equal spread with a fixed
// sum are independent ones of D / (D - 1) times the variance less their mean, which takes nothing from the expected
// maximum: hence the factor, exact for equal GPUs and many tokens. All errors are of relative order 1 / d, see above.
double expected_busiest_share(std::span<const double> weights, const LayerPlacement& placement, int gpus, int top_k,
                              int64_t tokens) {
  need(top_k >= 1 && tokens >= 0, "top_k must be at least 1 and tokens not negative");
  need(std::count_if(weights.begin(), weights.end(), [](double w) { return w > 0; }) >= top_k,
       "fewer than top_k = " + std::to_string(top_k) + " experts have weight");
  if (gpus == 1 || tokens == 0) return 1;
  std::vector<Moments> loads = load_moments(inclusion(weights, top_k), placement, gpus, tokens);
  double low = 0, high = 0;
  bool spread = true;  // no load is all but certain, as its family's recursion needs
  for (auto& [mean, variance] : loads) {
    variance *= gpus / (gpus - 1.0);
    low = std::max(low, mean - 8 * std::sqrt(variance));
    high = std::max(high, mean + 10 * std::sqrt(variance) + 12);
    spread = spread && (mean <= 0 || variance > mean / 100);
  }
  const double mean = static_cast<double>(tokens) * top_k / gpus;
  const bool small = spread && high < 1000;
  const double most =
      small ? expected_max_small(loads, static_cast<size_t>(high)) : expected_max_large(loads, low, high);
  return std::max(1.0, most / mean);
}

OnlineBalancer::OnlineBalancer(const BalancerConfig& config, int layers, int experts)
    : config_(config), layers_(layers), experts_(experts) {
  interval_ = power_law(layers, experts, 0, 0);  // checks both, and is the even load to start from
  placements_ = rebalance(interval_, config.cluster);
  need(config.interval_steps >= 1 && config.moves_per_step >= 1,
       "interval_steps and moves_per_step must be at least 1");
  need(config.newest_weight > 0 && config.newest_weight <= 1, "newest_weight must be above 0 and at most 1");
  need(config.bytes_per_expert >= 0, "bytes_per_expert must not be negative");
  if (config.cluster.replicas == experts)
    std::fill(placements_.begin(), placements_.end(), contiguous_placement(experts, config.cluster.gpus));
  targets_ = placements_;
  for (Numbers& row : interval_) std::fill(row.begin(), row.end(), 0.0);
}

std::span<const ReplicaMove> OnlineBalancer::step(std::span<const int64_t> tokens) {
  const auto experts = static_cast<size_t>(experts_);
  need(tokens.size() == interval_.size() * experts,
       "want token counts of " + count(layers_, "layers x ") + count(experts_, "experts"));
  for (size_t i = 0; i < tokens.size(); ++i) interval_[i / experts][i % experts] += static_cast<double>(tokens[i]);
  if (++steps_ % config_.interval_steps == 0) {
    fold_interval();
    if (done_ == pending_.size()) plan();
  }
  const size_t first = done_;
  done_ = std::min(pending_.size(), first + static_cast<size_t>(config_.moves_per_step));
  for (size_t i = first; i < done_; ++i) {
    const auto layer = static_cast<size_t>(pending_[i].layer);
    if (i + 1 == pending_.size() || pending_[i + 1].layer != pending_[i].layer) placements_[layer] = targets_[layer];
  }
  const auto moves = std::span<const ReplicaMove>(pending_).subspan(first, done_ - first);
  moved_bytes_ += bytes(moves);
  return moves;
}

void OnlineBalancer::fold_interval() {
  const double newest = average_.empty() ? 1 : config_.newest_weight;
  if (average_.empty()) average_.assign(interval_.size(), Numbers(static_cast<size_t>(experts_)));
  for (size_t layer = 0; layer < interval_.size(); ++layer)
    for (size_t i = 0; i < interval_[layer].size(); ++i) {
      average_[layer][i] += newest * (interval_[layer][i] - average_[layer][i]);
      interval_[layer][i] = 0;
    }
}

void OnlineBalancer::plan() {
  pending_.clear();
  done_ = 0;
  std::vector<LayerPlacement> wanted = rebalance(average_, config_.cluster);
  const int gpus = config_.cluster.gpus;
  for (int layer = 0; layer < layers_; ++layer) {
    const auto i = static_cast<size_t>(layer);
    const double now = imbalance(gpu_loads(average_[i], placements_[i], gpus));
    // Rounding alone must not start a move.
    if (imbalance(gpu_loads(average_[i], wanted[i], gpus)) < now - 1e-9) queue_layer(layer, std::move(wanted[i]));
  }
}

// Within a GPU the order of slots is free: what stays on its GPU keeps its slot, so only newcomers are copied.
void OnlineBalancer::queue_layer(int layer, LayerPlacement target) {
  const std::vector<int>& held = placements_[static_cast<size_t>(layer)].expert_of_slot;
  const size_t slots = held.size() / static_cast<size_t>(config_.cluster.gpus);
  std::vector<int> placed = held;
  for (size_t first = 0; first < held.size(); first += slots) {
    std::vector<int> newcomers(target.expert_of_slot.begin() + static_cast<ptrdiff_t>(first),
                               target.expert_of_slot.begin() + static_cast<ptrdiff_t>(first + slots));
    std::vector<size_t> vacated;
    for (size_t slot = first; slot < first + slots; ++slot) {
      const auto stays = std::find(newcomers.begin(), newcomers.end(), held[slot]);
      if (stays != newcomers.end())
        newcomers.erase(stays);
      else
        vacated.push_back(slot);
    }
    for (size_t i = 0; i < vacated.size(); ++i) {
      placed[vacated[i]] = newcomers[i];
      pending_.push_back({layer, static_cast<int>(vacated[i]), newcomers[i]});
    }
  }
  target.expert_of_slot = std::move(placed);
  targets_[static_cast<size_t>(layer)] = std::move(target);
}

}  // namespace drydock::scheduler
