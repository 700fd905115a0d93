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
// A smaller batch costs more only if closed forms say so by more than simulations' luck.
constexpr double kClearlyMore = 1.05;
// With pools of their own for prefill: one whose first tokens come too late speaks for those that closed forms give
// first tokens so much later still.
constexpr double kLaterStill = 1.05;

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
    number_shapes_and_ladders();
    in_parallel(trials_.size(), [&](size_t i) { prepare(trials_[i]); });
  }

  std::vector<Trial> run() {
    std::vector<size_t> left = by_promise();
    while (!left.empty()) {
      std::vector<size_t> round, later;
      std::vector<char> of_ladder(ladders_.size(), 0), of_prefill(late_prefill_.size(), 0);
      const Limits limits = question_.prune ? limits_so_far() : Limits{};
      for (const size_t i : left) {
        if (question_.prune && !worth_trying(i, limits)) continue;
        // What comes of one may spare the next of its ladder.
        const bool waits = question_.prune && (of_ladder[ladder_[i]] || of_prefill[prefill_[i]]);
        (round.size() >= kRound || waits ? later : round).push_back(i);
        of_ladder[ladder_[i]] = of_prefill[prefill_[i]] = 1;
      }
      in_parallel(round.size(), [&](size_t i) { simulate(round[i]); });
      for (const size_t i : round) learn_from(i);
      left = std::move(later);
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
    // At a rate all serve the same; else the band of what is served is at least as wide as with exact kernel times.
    const double least_spread =
        w.rate ? 0 : t.priced->engines.front()->backend().tpot_spread_of(t.priced->pools.size() > 1);
    const double least = price / (w.rate ? *w.rate : most * kWindowLuck);
    t.least_cost = careful_cost({least, least, least * std::exp(least_spread)});
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
    std::vector<Rank> shapes;  // by number
  };

  // With every batch limit kept full, a bigger batch serves more in all and nobody sooner. So of plans that differ in
  // it alone, those above one that clearly misses a target miss it too, and those below one that meets them cost more;
  // with pools of their own for prefill they may cost the same, as prefill can be what limits them.
  // Where prompts are most of the work all batches cost about the same, and which costs least is up to chance.
  struct Ladder {
    int64_t met = 0, missed = std::numeric_limits<int64_t>::max();
    double met_cost = 0;  // by closed forms
  };

  bool worth_trying(size_t i, const Limits& limits) {
    Trial& t = trials_[i];
    const Rank bound = rank_bound(t);
    if (t.impossible || bound > limits.list || bound > limits.shapes[shape_[i]]) return false;
    const int64_t batch = batch_of(*t.priced);
    const Ladder& ladder = ladders_[ladder_[i]];
    const bool costs_more = batch < ladder.met && closed_cost(t) > kClearlyMore * ladder.met_cost;
    t.implied = batch > ladder.missed || costs_more || late_too(i);
    return !t.implied;
  }

  // Where the load is given, a limit that is too small makes users wait, and neither holds.
  void learn_from(size_t i) {
    const Trial& t = trials_[i];
    if (question_.workload.rate || question_.workload.concurrency) return;
    Ladder& ladder = ladders_[ladder_[i]];
    const int64_t batch = batch_of(*t.priced);
    // One that was given up with others on time so far may be near: batches above it have been seen to meet the
    // targets.
    const bool clear_miss = !t.served || t.tightness > kClearMiss;
    if (t.meets && t.priced->mode == models::Mode::agg && batch > ladder.met)
      ladder.met = batch, ladder.met_cost = closed_cost(t);
    if (clear_miss) ladder.missed = std::min(ladder.missed, batch);
    if (clear_miss && first_tokens_late_[i] && t.priced->mode == models::Mode::disagg)
      late_prefill_[prefill_[i]] = std::min(late_prefill_[prefill_[i]], first_token_ms(t));
  }

  // By closed forms it is late itself, and later than one that was late as simulated.
  bool late_too(size_t i) const {
    const double ms = first_token_ms(trials_[i]);
    return question_.slo.ttft_ms && ms > *question_.slo.ttft_ms && ms > kLaterStill * late_prefill_[prefill_[i]];
  }

  static double first_token_ms(const Trial& t) { return t.priced->served.ttft_ms.value; }

  // Of the pool that decodes, the last.
  static int64_t batch_of(const Priced& priced) { return priced.pools.back().max_batch; }

  // What plans that differ in that batch alone have in common.
  static std::pair<Shape, std::vector<int64_t>> ladder_of(const Priced& priced) {
    std::vector<int64_t> rest;
    for (const models::Pool& pool : priced.pools) rest.insert(rest.end(), {pool.replicas, pool.max_tokens});
    if (priced.pools.size() > 1) rest.push_back(priced.pools.front().max_batch);
    return {shape_of(priced), rest};
  }

  void number_shapes_and_ladders() {
    std::map<Shape, size_t> shapes;
    std::map<std::pair<Shape, std::vector<int64_t>>, size_t> ladders, prefills;
    for (const Trial& t : trials_) {
      auto ladder = ladder_of(*t.priced);
      const models::Pool& first = t.priced->pools.front();
      std::pair prefill{ladder.first, std::vector{first.max_batch, first.max_tokens}};
      prefill_.push_back(prefills.emplace(std::move(prefill), prefills.size()).first->second);
      shape_.push_back(shapes.emplace(ladder.first, shapes.size()).first->second);
      ladder_.push_back(ladders.emplace(std::move(ladder), ladders.size()).first->second);
    }
    shapes_ = shapes.size();
    ladders_.resize(ladders.size());
    late_prefill_.resize(prefills.size(), INFINITY);
    first_tokens_late_.resize(trials_.size());
  }

  // Those that closed forms say meet the targets first, the cheapest of them first: a good one found early rules out
  // most.
  std::vector<size_t> by_promise() const {
    std::vector<size_t> order(trials_.size());
    std::iota(order.begin(), order.end(), 0);
    std::vector<std::pair<double, double>> key(trials_.size());
    for (size_t i = 0; i < key.size(); ++i) key[i] = promise(trials_[i]);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key[a] < key[b]; });
    return order;
  }

  std::pair<double, double> promise(const Trial& t) const {
    const double tight = tightness(t.priced->served);
    return {tight <= 1 ? 0 : tight, question_.goal == Goal::fewest_gpus ? t.gpus : closed_cost(t)};
  }

  static double closed_cost(const Trial& t) { return cost_of(t, t.priced->served.requests_per_s); }

  static double cost_of(const Trial& t, const core::Figure& rate) {
    return careful_cost({t.price_per_hour / rate.value, t.price_per_hour / rate.high, t.price_per_hour / rate.low});
  }

  double tightness(const simulator::Served& served) const {
    const models::Slo& slo = question_.slo;
    const std::optional<double> limits[] = {slo.ttft_ms, slo.tpot_ms, slo.request_latency_ms};
    double most = 0;
    for (int i = 0; i < 3; ++i)
      if (limits[i]) most = std::max(most, figure_of(served, question_.workload, i).value / *limits[i]);
    return most;
  }

  void simulate(size_t i) {
    Trial& t = trials_[i];
    t.tried = true;
    bool late = false;
    t.served = simulator::serve(deployment_of(*t.priced), question_.workload, targets_, {}, nullptr, &late);
    first_tokens_late_[i] = late;
    if (!t.served) return;
    t.tightness = tightness(*t.served);
    const bool hopeless = t.served->tail && t.served->tail->hopeless;
    t.meets = !hopeless && t.tightness <= 1;
    t.cost = cost_of(t, t.served->requests_per_s);
  }

  Limits limits_so_far() const {
    const Rank none{INFINITY, INFINITY};
    Limits out{none, std::vector<Rank>(shapes_, none)};
    for (size_t i = 0; i < trials_.size(); ++i)
      if (trials_[i].meets)
        out.shapes[shape_[i]] = std::min(out.shapes[shape_[i]], rank_of(trials_[i], trials_[i].cost));
    std::vector<Rank> best = out.shapes;
    std::sort(best.begin(), best.end());
    if (const auto top = static_cast<size_t>(question_.top); top >= 1 && best.size() >= top) out.list = best[top - 1];
    return out;
  }

  const Question& question_;
  Resources& resources_;
  simulator::Targets targets_;
  bool priced_ = true;  // some systems with and some without a price can't be compared by cost
  std::vector<Trial> trials_;
  std::vector<size_t> shape_, ladder_, prefill_;  // numbers, by trial; prefill_: of shape, budget and prompts a step
  size_t shapes_ = 0;
  std::vector<Ladder> ladders_;
  std::vector<double> late_prefill_;     // by prefill_: the shortest TTFT of closed forms that was late simulated [ms]
  std::vector<char> first_tokens_late_;  // by trial
};

}  // namespace

double careful_cost(const core::Figure& cost) {
  constexpr double kQuartile = 0.6745, kDecile = 1.2816;  // of the normal distribution; a band's ends are deciles
  return cost.value * std::pow(cost.high / cost.value, kQuartile / kDecile);
}

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
