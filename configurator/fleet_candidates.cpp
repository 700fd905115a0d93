// What a fleet can choose among: workers and groups of workers from the search, each with the rate it keeps up.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "configurator/fleet.h"
#include "configurator/parallel.h"
#include "configurator/predict.h"

namespace drydock::configurator {
namespace {

constexpr int kShapesAtFullLoad = 8, kShapesAtTheRate = 2;
// Above so many GPUs the units that do most per GPU are all that matters, and those are found under full load.
constexpr int kMostGpusAtTheRate = 16;
constexpr int64_t kFirstUnitGpus = 8;  // of a full-load search; doubled until something is within the targets
constexpr double kRateStep = 1.02;     // capacities are found to 2 %, from below

// One search: a model on one type of GPU, or on two with prefill on the first.
struct FleetTask {
  size_t model, prefill, decode;
};

struct FleetFound {
  std::vector<FleetCandidate> units;
  double nearest = INFINITY;  // smallest ratio of a figure to its target, where nothing is within them
  std::string reason;
};

std::vector<FleetTask> tasks_of(const Fleet& fleet) {
  std::vector<FleetTask> out;
  for (size_t m = 0; m < fleet.models.size(); ++m)
    for (size_t p = 0; p < fleet.stock.size(); ++p)
      for (size_t d = 0; d < fleet.stock.size(); ++d) {
        const bool pair = p != d, may = !pair || (fleet.mixed_pools && fleet.mode != ModeChoice::agg);
        if (may && fleet.stock[p].gpus > 0 && fleet.stock[d].gpus > 0) out.push_back({m, p, d});
      }
  return out;
}

Question fleet_question(const Fleet& fleet, const FleetTask& task) {
  const Fleet::Model& model = fleet.models[task.model];
  Question q;
  q.model = model.model.text;
  q.precision = model.precision;
  q.kv_precision = model.kv_precision;
  q.backend = model.backend;
  q.system = fleet.stock[task.prefill].system.text;
  q.mode = fleet.mode;
  if (task.prefill != task.decode) {
    q.decode_system = fleet.stock[task.decode].system.text;
    q.mode = ModeChoice::disagg;
  }
  q.workload = model.workload;
  q.slo = model.slo;
  return q;
}

int64_t gpus_at_hand(const Fleet& fleet, const FleetTask& task) {
  const int64_t first = fleet.stock[task.prefill].gpus;
  return task.prefill == task.decode ? first : first + fleet.stock[task.decode].gpus;
}

// Takes the plan apart into equal units and returns how many there were: workers, or the smallest group that has
// prefill and decode workers in the plan's proportion.
int to_unit(models::Plan& plan) {
  int units = 0;
  for (const models::Pool& pool : plan.pools) units = std::gcd(units, pool.replicas);
  for (models::Pool& pool : plan.pools) pool.replicas /= units;
  plan.prediction.reset();
  return units;
}

// Whether the unit's users are within the targets at a rate of Poisson arrivals.
class UnitTrial {
 public:
  UnitTrial(const models::Plan& unit, Resources& resources) : unit_(unit), instances_(instances_of(unit, resources)) {}

  bool keeps_up(double rate) const {
    models::Workload workload = unit_.workload;
    workload.rate = rate;
    const auto served = simulator::serve(instances_.deployment, workload, targets_of(unit_.slo));
    if (!served || (served->tail && served->tail->hopeless)) return false;
    return meets(prediction_of(*served, workload, unit_.gpus(), std::nullopt), unit_.slo);
  }

 private:
  const models::Plan& unit_;
  Instances instances_;
};

// The highest rate kept up, to kRateStep; `good` is one that is known (0: none), `guess` about where it ends.
double capacity_of(const models::Plan& unit, double good, double guess, Resources& resources) {
  const UnitTrial trial(unit, resources);
  constexpr int kMostTrials = 14;
  double bad = INFINITY, next = std::max(guess, good * kRateStep);
  for (int i = 0; i < kMostTrials && (good == 0 || bad / good > kRateStep); ++i) {
    (trial.keeps_up(next) ? good : bad) = next;
    next = bad == INFINITY ? good * 1.5 : good == 0 ? bad / 2 : std::sqrt(good * bad);
  }
  return good;
}

// Whether so many of `a` as take no more GPUs of any type than one `b` keep up at least `rate`.
bool stand_in(const FleetCandidate& a, const std::vector<int64_t>& b_gpus, double rate) {
  int64_t copies = std::numeric_limits<int64_t>::max();
  for (size_t s = 0; s < b_gpus.size(); ++s)
    if (a.gpus[s] > 0) copies = std::min(copies, b_gpus[s] / a.gpus[s]);
  return static_cast<double>(copies) * a.rate >= rate;
}

class FleetSearch {
 public:
  FleetSearch(const Fleet& fleet, Resources& resources) : fleet_(fleet), resources_(resources) {}

  FleetFound run(const FleetTask& task) {
    FleetFound out;
    const double rate = *fleet_.models[task.model].workload.rate;
    Question q = fleet_question(fleet_, task);
    const int64_t at_hand = gpus_at_hand(fleet_, task);
    q.goal = Goal::fewest_gpus;
    q.top = kShapesAtTheRate;
    q.gpus = static_cast<int>(std::min<int64_t>(at_hand, kMostGpusAtTheRate));
    for (const Ranked& ranked : recommend(q, resources_).plans) add(task, ranked, rate, out);
    q.goal = Goal::throughput_per_gpu;
    q.top = kShapesAtFullLoad;
    q.workload.rate.reset();
    const int64_t most = std::min<int64_t>(at_hand, fleet_.unit_gpus);
    // Closed forms choose the shapes, in a tenth of the time: what each keeps up is simulated below.
    q.method = Method::analytic;
    for (int64_t gpus = std::min(most, kFirstUnitGpus);; gpus = std::min(most, 2 * gpus)) {
      q.gpus = static_cast<int>(gpus);
      for (const Ranked& ranked : recommend(q, resources_).plans) add(task, ranked, 0, out);
      if (!out.units.empty() || gpus == most) break;
    }
    if (!out.units.empty()) return out;
    q.method = Method::simulate;
    const Answer full = recommend(q, resources_);
    for (const Ranked& ranked : full.plans) add(task, ranked, 0, out);
    if (!full.plans.empty()) return out;
    if (full.nearest.empty()) {
      out.reason = "nothing fits on " + place(task);
    } else {
      out.nearest = full.nearest.front().tightness;
      out.reason =
          fmt::format("on {} {} is {:.3g} x its target", place(task), full.nearest.front().binding, out.nearest);
    }
    return out;
  }

 private:
  std::string place(const FleetTask& task) const {
    const std::string& first = fleet_.stock[task.prefill].system.text;
    return task.prefill == task.decode ? first : first + " + " + fleet_.stock[task.decode].system.text;
  }

  // `rate`: that the whole plan is known to keep up; 0: it was asked for as much as it can.
  void add(const FleetTask& task, const Ranked& ranked, double rate, FleetFound& out) {
    FleetCandidate c;
    c.model = task.model;
    c.plan = ranked.plan;
    const double whole = ranked.plan.prediction->requests_per_s.value;
    const int units = to_unit(c.plan);
    c.plan.workload = fleet_.models[task.model].workload;
    if (c.plan.gpus() > fleet_.unit_gpus || !seen_.insert(identity(c.plan)).second) return;
    c.gpus.assign(fleet_.stock.size(), 0);
    for (const models::Pool& pool : c.plan.pools)
      c.gpus[pool.role == models::Role::decode ? task.decode : task.prefill] += pool.gpus();
    for (size_t s = 0; s < c.gpus.size(); ++s)
      if (c.gpus[s] > fleet_.stock[s].gpus) return;
    // Kept full, it serves `whole`, and no arrivals make it serve more: where others do that much, it is not needed.
    constexpr double kError = 1.1;  // of closed forms
    if (rate == 0 && std::any_of(out.units.begin(), out.units.end(),
                                 [&](const FleetCandidate& a) { return stand_in(a, c.gpus, whole / units * kError); }))
      return;
    c.rate = capacity_of(c.plan, rate / units, (rate > 0 ? rate * kRateStep : whole) / units, resources_);
    if (c.rate > 0) out.units.push_back(std::move(c));
  }

  static std::string identity(const models::Plan& plan) {
    std::string out = std::string(models::name(plan.backend));
    for (const models::Pool& pool : plan.pools) {
      const models::Parallelism& p = pool.parallelism;
      out += fmt::format("/{} {} {} {} {} {} {} {} {} {}", models::name(pool.role), pool.system, p.tp, p.pp,
                         p.attention_dp, p.moe_tp, p.ep, pool.replicas, pool.max_batch, pool.max_tokens);
    }
    return out;
  }

  const Fleet& fleet_;
  Resources& resources_;
  std::set<std::string> seen_;
};

// Without the units that some number of another one can stand in for: these take no more GPUs and cost no more, so that
// a cheapest choice needs none of the former.
std::vector<FleetCandidate> undominated(const std::vector<FleetCandidate>& all) {
  const auto beats = [&](size_t a, size_t b) {
    if (all[a].model != all[b].model || !stand_in(all[a], all[b].gpus, all[b].rate)) return false;
    return a < b || !stand_in(all[b], all[a].gpus, all[a].rate);  // of two alike the first stays
  };
  std::vector<FleetCandidate> out;
  for (size_t b = 0; b < all.size(); ++b) {
    bool beaten = false;
    for (size_t a = 0; a < all.size() && !beaten; ++a) beaten = a != b && beats(a, b);
    if (!beaten) out.push_back(all[b]);
  }
  return out;
}

}  // namespace

bool meets(const models::Prediction& p, const models::Slo& slo) {
  const auto within = [](const std::optional<double>& limit, const core::Figure& figure) {
    return !limit || figure.value <= *limit;
  };
  return within(slo.ttft_ms, p.tail ? p.tail->ttft_ms : p.ttft_ms) &&
         within(slo.tpot_ms, p.tail ? p.tail->tpot_ms : p.tpot_ms) &&
         within(slo.request_latency_ms, p.tail ? p.tail->request_latency_ms : p.request_latency_ms);
}

std::vector<FleetCandidate> fleet_candidates(const Fleet& fleet, Resources& resources,
                                             std::vector<std::pair<size_t, std::string>>& why_none) {
  const std::vector<FleetTask> tasks = tasks_of(fleet);
  std::vector<FleetFound> found(tasks.size());
  in_parallel(tasks.size(), [&](size_t i) {
    const LoopThreads one(tasks.size() > 1 ? 1 : 0);
    const NamedLine& model = fleet.models[tasks[i].model].model;
    try {
      found[i] = FleetSearch(fleet, resources).run(tasks[i]);
    } catch (const core::Error& error) {
      throw yaml_error(fleet.origin, model.line, error.what());
    }
  });
  std::vector<FleetCandidate> all;
  for (const FleetFound& f : found) all.insert(all.end(), f.units.begin(), f.units.end());
  for (size_t m = 0; m < fleet.models.size(); ++m) {
    if (std::any_of(all.begin(), all.end(), [&](const FleetCandidate& c) { return c.model == m; })) continue;
    const FleetFound* nearest = nullptr;
    for (size_t i = 0; i < tasks.size(); ++i)
      if (tasks[i].model == m && (!nearest || found[i].nearest < nearest->nearest)) nearest = &found[i];
    why_none.emplace_back(m, !nearest                   ? "the stock is empty"
                             : !nearest->reason.empty() ? nearest->reason
                                                        : "nothing in stock keeps up any rate within its targets");
  }
  return undominated(all);
}

}  // namespace drydock::configurator
