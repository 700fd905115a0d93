#include "configurator/judge.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "configurator/parallel.h"

namespace drydock::configurator {
namespace {

// Candidates simulated between two looks at what is left: the same on any machine, so that the answer is, too.
constexpr size_t kRound = 8;
// A simulation's throughput is that of a window, which may be this much above what can be kept up for ever.
constexpr double kWindowLuck = 1.03;
// A candidate that misses a target by more than this speaks for those that differ in nothing but a bigger batch.
constexpr double kClearMiss = 1.1;

simulator::Deployment deployment_of(const Priced& priced) {
  simulator::Deployment out;
  for (size_t i = 0; i < priced.pools.size(); ++i) {
    const models::Pool& pool = priced.pools[i];
    out.parts.push_back({priced.engines[i].get(), pool.role, pool.replicas, pool.max_batch});
  }
  out.transfer_ms = priced.transfer_ms;
  return out;
}

class Judge {
 public:
  Judge(const Question& question, const std::vector<Priced>& candidates, Resources& resources)
      : question_(question), resources_(resources), targets_(targets_of(question.slo)) {
    for (const std::string* system : {&question.system, &question.decode_system})
      if (!system->empty() && !resources.system(*system).price_per_gpu_hour) priced_ = false;
    trials_.resize(candidates.size());
    for (size_t i = 0; i < candidates.size(); ++i) trials_[i].priced = &candidates[i];
    in_parallel(trials_.size(), [&](size_t i) { prepare(trials_[i]); });
  }

  std::vector<Trial> run() {
    std::vector<size_t> order(trials_.size());
    std::iota(order.begin(), order.end(), 0);
    // Those that closed forms say meet the targets first, the cheapest of them first: a good one found early rules out
    // most.
    std::vector<std::pair<double, double>> key(trials_.size());
    for (size_t i = 0; i < key.size(); ++i) key[i] = promise(trials_[i]);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key[a] < key[b]; });
    for (size_t next = 0; next < order.size();) {
      std::vector<size_t> round;
      const Limits limits = question_.prune ? limits_so_far() : Limits{};
      for (; next < order.size() && round.size() < kRound; ++next)
        if (!question_.prune || worth_trying(trials_[order[next]], limits)) round.push_back(order[next]);
      in_parallel(round.size(), [&](size_t i) { simulate(trials_[round[i]]); });
      for (const size_t i : round) learn_from(trials_[i]);
    }
    return std::move(trials_);
  }

 private:
  void prepare(Trial& t) const {
    double price = 0;
    for (const models::Pool& pool : t.priced->pools) {
      t.gpus += pool.gpus();
      price += pool.gpus() * (priced_ ? *resources_.system(pool.system).price_per_gpu_hour : 1.0);
    }
    t.price_per_hour = price;
    const models::Workload& w = question_.workload;
    double most = INFINITY, ttft_ms = 0, tpot_ms = 0;
    for (size_t i = 0; i < t.priced->pools.size(); ++i) {
      const models::Pool& pool = t.priced->pools[i];
      const double users = pool.role == models::Role::prefill ? 0 : w.concurrency.value_or(0) / pool.replicas;
      const auto bound = t.priced->engines[i]->bound(w, pool.role, pool.max_batch, users);
      most = std::min(most, bound.requests_per_s * pool.replicas);
      ttft_ms = std::max(ttft_ms, bound.ttft_ms);
      tpot_ms = std::max(tpot_ms, bound.tpot_ms);
    }
    t.least_cost = price / (w.rate ? *w.rate : most * kWindowLuck);
    const models::Slo& slo = question_.slo;
    t.impossible = (slo.ttft_ms && ttft_ms > *slo.ttft_ms) || (slo.tpot_ms && w.osl > 1 && tpot_ms > *slo.tpot_ms);
  }

  // In the order of the answer: GPUs where fewest are asked for, then cost.
  using Rank = std::pair<double, double>;
  Rank rank_of(const Trial& t, double cost) const { return {question_.goal == Goal::fewest_gpus ? t.gpus : 0, cost}; }
  Rank rank_bound(const Trial& t) const { return rank_of(t, t.least_cost); }

  // What a candidate must reach to be shown: the worst of the `top` best shapes, and the best of its own shape.
  struct Limits {
    Rank list{INFINITY, INFINITY};
    std::map<Shape, Rank> shapes;

    bool allow(const Rank& bound, const Shape& shape) const {
      const auto own = shapes.find(shape);
      return bound <= list && (own == shapes.end() || bound <= own->second);
    }
  };

  // With every batch limit kept full, a bigger batch serves more in all and nobody sooner. So of plans that differ in
  // it alone, those above one that clearly misses a target miss it too, and those below one that meets them cost more;
  // with pools of their own for prefill they may cost the same, as prefill can be what limits them.
  struct Ladder {
    int64_t met = 0, missed = std::numeric_limits<int64_t>::max();
  };

  bool worth_trying(Trial& t, const Limits& limits) const {
    if (t.impossible || !limits.allow(rank_bound(t), shape_of(*t.priced))) return false;
    const auto ladder = ladders_.find(ladder_of(*t.priced));
    if (ladder == ladders_.end()) return true;
    const int64_t batch = batch_of(*t.priced);
    t.implied = batch > ladder->second.missed || batch < ladder->second.met;
    return !t.implied;
  }

  // Where the load is given, a limit that is too small makes users wait, and neither holds.
  void learn_from(const Trial& t) {
    if (question_.workload.rate || question_.workload.concurrency) return;
    Ladder& ladder = ladders_[ladder_of(*t.priced)];
    const int64_t batch = batch_of(*t.priced);
    const bool hopeless = !t.served || (t.served->tail && t.served->tail->hopeless);
    if (t.meets && t.priced->mode == models::Mode::agg) ladder.met = std::max(ladder.met, batch);
    if (hopeless || t.tightness > kClearMiss) ladder.missed = std::min(ladder.missed, batch);
  }

  // Of the pool that decodes, the last.
  static int64_t batch_of(const Priced& priced) { return priced.pools.back().max_batch; }

  // What plans that differ in that batch alone have in common.
  static std::pair<Shape, std::vector<int64_t>> ladder_of(const Priced& priced) {
    std::vector<int64_t> rest;
    for (const models::Pool& pool : priced.pools) rest.insert(rest.end(), {pool.replicas, pool.max_tokens});
    if (priced.pools.size() > 1) rest.push_back(priced.pools.front().max_batch);
    return {shape_of(priced), rest};
  }

  std::pair<double, double> promise(const Trial& t) const {
    const double tight = tightness(t.priced->served);
    return {tight <= 1 ? 0 : tight, question_.goal == Goal::fewest_gpus ? t.gpus : closed_cost(t)};
  }

  static double closed_cost(const Trial& t) { return t.price_per_hour / t.priced->served.requests_per_s.value; }

  double tightness(const simulator::Served& served) const {
    const models::Slo& slo = question_.slo;
    const std::optional<double> limits[] = {slo.ttft_ms, slo.tpot_ms, slo.request_latency_ms};
    double most = 0;
    for (int i = 0; i < 3; ++i)
      if (limits[i]) most = std::max(most, figure_of(served, question_.workload, i).value / *limits[i]);
    return most;
  }

  void simulate(Trial& t) const {
    t.tried = true;
    t.served = simulator::serve(deployment_of(*t.priced), question_.workload, targets_);
    if (!t.served) return;
    t.tightness = tightness(*t.served);
    const bool hopeless = t.served->tail && t.served->tail->hopeless;
    t.meets = !hopeless && t.tightness <= 1;
    t.cost = t.price_per_hour / t.served->requests_per_s.value;
  }

  Limits limits_so_far() const {
    Limits out;
    for (const Trial& t : trials_) {
      if (!t.meets) continue;
      const auto [place, is_new] = out.shapes.emplace(shape_of(*t.priced), rank_of(t, t.cost));
      if (!is_new) place->second = std::min(place->second, rank_of(t, t.cost));
    }
    std::vector<Rank> best;
    for (const auto& [shape, rank] : out.shapes) best.push_back(rank);
    std::sort(best.begin(), best.end());
    if (const auto top = static_cast<size_t>(question_.top); top >= 1 && best.size() >= top) out.list = best[top - 1];
    return out;
  }

  const Question& question_;
  Resources& resources_;
  simulator::Targets targets_;
  bool priced_ = true;  // some systems with and some without a price can't be compared by cost
  std::vector<Trial> trials_;
  std::map<std::pair<Shape, std::vector<int64_t>>, Ladder> ladders_;
};

}  // namespace

core::Figure figure_of(const simulator::Served& served, const models::Workload& w, int index) {
  if (served.tail)
    return index == 0 ? served.tail->ttft_ms : index == 1 ? served.tail->tpot_ms : served.tail->request_latency_ms;
  if (index == 0) return served.ttft_ms;
  if (index == 1) return served.tpot_ms;
  return prediction_of(served, w, 1, std::nullopt).request_latency_ms;
}

Shape shape_of(const Priced& priced) {
  Shape shape{static_cast<int>(priced.backend), static_cast<int>(priced.mode)};
  for (const models::Pool& pool : priced.pools) {
    const models::Parallelism& p = pool.parallelism;
    shape.insert(shape.end(), {p.tp, p.pp, p.attention_dp, p.moe_tp, p.ep});
  }
  return shape;
}

std::optional<simulator::Served> simulate_whole(const Question& question, const Priced& priced) {
  simulator::LoadOptions options;
  options.gives_up = false;
  return simulator::serve(deployment_of(priced), question.workload, targets_of(question.slo), options);
}

std::vector<Trial> judge(const Question& question, const std::vector<Priced>& candidates, Resources& resources) {
  return Judge(question, candidates, resources).run();
}

}  // namespace drydock::configurator
