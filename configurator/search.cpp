#include "configurator/search.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "configurator/judge.h"
#include "configurator/parallel.h"
#include "configurator/predict.h"
#include "core/error.h"

namespace drydock::configurator {
namespace {

using core::Figure;

// A target and its figure: of the tail where the prediction has one.
struct Target {
  const char* name;
  double limit;
  Figure models::Prediction::*mean;
  Figure models::Prediction::Tail::*tail;

  double value(const models::Prediction& p) const { return (p.tail ? (*p.tail).*tail : p.*mean).value; }
};

std::vector<Target> limits_of(const models::Slo& slo) {
  using P = models::Prediction;
  std::vector<Target> out;
  if (slo.ttft_ms) out.push_back({"ttft", *slo.ttft_ms, &P::ttft_ms, &P::Tail::ttft_ms});
  if (slo.tpot_ms) out.push_back({"tpot", *slo.tpot_ms, &P::tpot_ms, &P::Tail::tpot_ms});
  if (slo.request_latency_ms)
    out.push_back({"request_latency", *slo.request_latency_ms, &P::request_latency_ms, &P::Tail::request_latency_ms});
  return out;
}

Binding nearest_target(const models::Prediction& prediction, const std::vector<Target>& targets) {
  Binding out;
  for (const Target& target : targets)
    if (const double ratio = target.value(prediction) / target.limit; ratio > out.tightness) out = {ratio, target.name};
  return out;
}

// A candidate with its figures, before it is worth being a plan.
struct Judged {
  const Priced* priced;
  models::Prediction prediction;
  int gpus;
  double tightness = 0;
  const char* binding = "";

  bool meets() const { return tightness <= 1; }
};

class Ranker {
 public:
  Ranker(const Question& question, Resources& resources)
      : question_(question), resources_(resources), targets_(limits_of(question.slo)) {
    for (const std::string* system : {&question.system, &question.decode_system})
      if (!system->empty() && !resources.system(*system).price_per_gpu_hour) all_priced_ = false;
  }

  Judged judge(const Priced& priced, const simulator::Served& served) const {
    Judged j{&priced, {}, 0};
    std::optional<double> price = 0;
    for (const models::Pool& pool : priced.pools) {
      j.gpus += pool.gpus();
      const auto one = resources_.system(pool.system).price_per_gpu_hour;
      price = price && one ? std::optional(*price + *one * pool.gpus()) : std::nullopt;
    }
    j.prediction = prediction_of(served, question_.workload, j.gpus, price);
    const Binding binding = nearest_target(j.prediction, targets_);
    j.tightness = binding.tightness;
    j.binding = binding.target;
    return j;
  }

  // Better first: fewest GPUs where that is the goal, then cost where there are prices, throughput per GPU, less
  // tightness.
  bool better(const Judged& a, const Judged& b) const {
    if (question_.goal == Goal::fewest_gpus && a.gpus != b.gpus) return a.gpus < b.gpus;
    const auto cost = [&](const Judged& j) {
      return careful_cost(all_priced_ ? *j.prediction.cost_per_million_tokens
                                      : j.prediction.gpu_hours_per_million_tokens);
    };
    if (cost(a) != cost(b)) return cost(a) < cost(b);
    return a.tightness < b.tightness;
  }

  Ranked ranked(const Judged& j) const {
    Ranked out;
    models::Plan& plan = out.plan;
    plan.model = question_.model;
    plan.precision = question_.precision;
    plan.backend = j.priced->backend;
    const core::Hardware& hardware = resources_.system(question_.system).hardware;
    plan.kv_precision = core::name(deployed_precision(resources_.model(question_.model), question_.precision,
                                                      question_.kv_precision, plan.backend, hardware)
                                       .kv);
    plan.backend_version = resources_.times(j.priced->pools.front().system, plan.backend).version();
    plan.mode = j.priced->mode;
    plan.pools = j.priced->pools;
    plan.speculative = question_.speculative;
    plan.experts = question_.experts;
    plan.workload = question_.workload;
    plan.slo = question_.slo;
    plan.prediction = j.prediction;
    out.meets_slo = j.meets();
    out.tightness = j.tightness;
    out.binding = j.binding;
    return out;
  }

  const std::vector<Target>& targets() const { return targets_; }

 private:
  const Question& question_;
  Resources& resources_;
  std::vector<Target> targets_;
  bool all_priced_ = true;  // some systems with and some without a price can't be compared by cost
};

std::vector<Ranked> best_of_each_shape(const std::vector<Judged>& sorted, const Ranker& ranker, int top) {
  std::set<Shape> seen;
  std::vector<Ranked> out;
  for (const Judged& j : sorted)
    if (static_cast<int>(out.size()) < top && seen.insert(shape_of(*j.priced)).second) out.push_back(ranker.ranked(j));
  return out;
}

std::vector<Ranked> nearest_misses(const std::vector<Judged>& judged, const Ranker& ranker) {
  std::vector<Ranked> out;
  const auto add_least = [&](const auto& key) {
    const auto least = std::min_element(judged.begin(), judged.end(),
                                        [&](const Judged& a, const Judged& b) { return key(a) < key(b); });
    if (least != judged.end()) out.push_back(ranker.ranked(*least));
  };
  add_least([](const Judged& j) { return j.tightness; });
  for (const Target& target : ranker.targets()) add_least([&](const Judged& j) { return target.value(j.prediction); });
  return out;
}

// Those that closed forms think nearest to the targets, together and one by one, simulated to the end.
std::vector<Judged> nearest_simulated(std::vector<Judged> closed, const Question& question, const Ranker& ranker) {
  constexpr size_t kEach = 8;
  std::set<const Priced*> chosen;
  const auto choose = [&](const auto& key) {
    const size_t n = std::min(kEach, closed.size());
    std::partial_sort(
        closed.begin(), closed.begin() + static_cast<long>(n), closed.end(),
        [&](const Judged& a, const Judged& b) { return key(a) != key(b) ? key(a) < key(b) : a.priced < b.priced; });
    for (size_t i = 0; i < n; ++i) chosen.insert(closed[i].priced);
  };
  choose([](const Judged& j) { return j.tightness; });
  for (const Target& target : ranker.targets()) choose([&](const Judged& j) { return target.value(j.prediction); });
  const std::vector<const Priced*> list(chosen.begin(), chosen.end());
  std::vector<std::optional<simulator::Served>> served(list.size());
  in_parallel(list.size(), [&](size_t i) { served[i] = simulate_whole(question, *list[i]); });
  std::vector<Judged> out;
  for (size_t i = 0; i < list.size(); ++i)
    if (served[i]) out.push_back(ranker.judge(*list[i], *served[i]));
  return out;
}

std::vector<Ranked> pareto_front(std::vector<Judged> judged, const Ranker& ranker) {
  const auto user = [](const Judged& j) { return j.prediction.tokens_per_s_per_user.value; };
  const auto gpu = [](const Judged& j) { return j.prediction.tokens_per_s_per_gpu.value; };
  std::stable_sort(judged.begin(), judged.end(), [&](const Judged& a, const Judged& b) {
    return user(a) != user(b) ? user(a) > user(b) : gpu(a) > gpu(b);
  });
  std::vector<Ranked> out;
  double best = 0;
  for (const Judged& j : judged)
    if (gpu(j) > best) {
      best = gpu(j);
      out.push_back(ranker.ranked(j));
    }
  std::reverse(out.begin(), out.end());
  return out;
}

void check(const Question& q, Resources& resources) {
  const models::Architecture& a = resources.model(q.model);
  if (q.workload.isl + q.workload.osl > a.max_context)
    throw core::Error("--isl " + std::to_string(q.workload.isl) + " and --osl " + std::to_string(q.workload.osl) +
                      " are more than the context of " + a.name + ", " + std::to_string(a.max_context) + " tokens");
  if (q.goal == Goal::fewest_gpus && !q.workload.rate && !q.workload.concurrency)
    throw core::Error("--rate or --concurrency is needed to size a deployment");
}

}  // namespace

Binding binding_of(const models::Prediction& prediction, const models::Slo& slo) {
  return nearest_target(prediction, limits_of(slo));
}

Answer recommend(const Question& question, Resources& resources) {
  check(question, resources);
  const Pricing pricing = price_candidates(question, resources);
  const Ranker ranker(question, resources);
  std::vector<Judged> closed;  // by closed forms
  for (const Priced& priced : pricing.priced) closed.push_back(ranker.judge(priced, priced.served));
  Answer answer;
  answer.counts = pricing.counts;
  answer.pareto = pareto_front(closed, ranker);
  std::vector<Judged> meeting;
  if (question.method == Method::simulate) {
    for (const Trial& t : judge(question, pricing.priced, resources)) {
      ++(t.tried ? answer.counts.simulated : t.implied ? answer.counts.implied : answer.counts.beaten);
      if (t.meets) meeting.push_back(ranker.judge(*t.priced, *t.served));
    }
  } else {
    std::copy_if(closed.begin(), closed.end(), std::back_inserter(meeting), [](const Judged& j) { return j.meets(); });
  }
  answer.counts.meeting_slo = static_cast<int64_t>(meeting.size());
  std::stable_sort(meeting.begin(), meeting.end(),
                   [&](const Judged& a, const Judged& b) { return ranker.better(a, b); });
  answer.plans = best_of_each_shape(meeting, ranker, question.top);
  if (meeting.empty())
    answer.nearest = nearest_misses(
        question.method == Method::simulate ? nearest_simulated(std::move(closed), question, ranker) : closed, ranker);
  return answer;
}

}  // namespace drydock::configurator
