#include "configurator/fleet.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "configurator/parallel.h"
#include "configurator/predict.h"

namespace drydock::configurator {
namespace {

// A unit whose plan missed its targets at the rate it was given is taken to keep up this much of that rate.
constexpr double kLowered = 0.97;
constexpr int kMostRounds = 40;

// Prices in place, and whether there are any; a fleet in which only some have one can't be compared by cost.
bool set_prices(const Fleet& fleet, Resources& resources) {
  size_t priced = 0;
  const Fleet::Stock* without = nullptr;
  for (const Fleet::Stock& stock : fleet.stock) {
    try {
      resources.system(stock.system.text);
    } catch (const core::Error& error) {
      throw yaml_error(fleet.origin, stock.system.line, error.what());
    }
    if (stock.price) resources.set_price(stock.system.text, *stock.price);
    if (resources.system(stock.system.text).price_per_gpu_hour)
      ++priced;
    else
      without = &stock;
  }
  if (priced > 0 && without)
    throw yaml_error(fleet.origin, without->system.line,
                     "system '" + without->system.text.substr(0, 60) +
                         "' has no price but others do; want price for all or for none");
  return priced > 0;
}

// Per hour; without prices the number of GPUs.
double cost_of(const Fleet& fleet, const std::vector<int64_t>& gpus, bool priced, Resources& resources) {
  double out = 0;
  for (size_t s = 0; s < gpus.size(); ++s)
    out += static_cast<double>(gpus[s]) *
           (priced ? *resources.system(fleet.stock[s].system.text).price_per_gpu_hour : 1.0);
  return out;
}

FleetProblem problem_of(const Fleet& fleet, const std::vector<FleetCandidate>& candidates, bool priced,
                        Resources& resources) {
  FleetProblem out;
  for (const Fleet::Stock& stock : fleet.stock) out.stock.push_back(stock.gpus);
  for (const Fleet::Model& model : fleet.models) out.demand.push_back(*model.workload.rate);
  for (const FleetCandidate& c : candidates)
    out.units.push_back({c.model, c.gpus, c.rate * (1 - fleet.headroom), cost_of(fleet, c.gpus, priced, resources)});
  return out;
}

// The chosen units with their shares of the traffic: in proportion to what each can keep up.
std::vector<FleetDeployment> deployments_of(const FleetProblem& problem, const FleetChoice& choice,
                                            const std::vector<FleetCandidate>& candidates, std::vector<size_t>& unit) {
  std::vector<double> capacity(problem.demand.size());
  for (size_t i = 0; i < candidates.size(); ++i)
    capacity[candidates[i].model] += problem.units[i].rate * static_cast<double>(choice.counts[i]);
  std::vector<FleetDeployment> out;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (choice.counts[i] == 0) continue;
    FleetDeployment d;
    d.model = candidates[i].model;
    d.units = choice.counts[i];
    const auto units = static_cast<double>(d.units);
    d.share = problem.units[i].rate * units / capacity[d.model];
    d.rate = d.share * problem.demand[d.model];
    d.capacity = candidates[i].rate * units;
    d.cost = problem.units[i].cost * units;
    d.plan = candidates[i].plan;
    for (models::Pool& pool : d.plan.pools) pool.replicas *= static_cast<int>(d.units);
    d.plan.workload.rate = d.rate;
    out.push_back(std::move(d));
    unit.push_back(i);
  }
  return out;
}

// Simulates each plan at its rate. Lowers the capacity of those that miss their targets; false: some did.
bool hold(std::vector<FleetDeployment>& deployments, const std::vector<size_t>& unit,
          std::vector<FleetCandidate>& candidates, Resources& resources) {
  std::vector<char> held(deployments.size());
  in_parallel(deployments.size(), [&](size_t i) {
    FleetDeployment& d = deployments[i];
    d.plan.prediction = predict(d.plan, resources);
    held[i] = d.plan.prediction && meets(*d.plan.prediction, d.plan.slo);
  });
  bool all = true;
  for (size_t i = 0; i < deployments.size(); ++i) {
    if (held[i]) continue;
    all = false;
    candidates[unit[i]].rate = deployments[i].rate / static_cast<double>(deployments[i].units) * kLowered;
  }
  return all;
}

void settle(const FleetChoice& choice, std::vector<FleetDeployment> deployments, const FleetProblem& problem,
            const std::vector<size_t>& unit, FleetAnswer& out) {
  out.feasible = true;
  out.cost = choice.cost;
  out.bound = choice.bound;
  for (size_t i = 0; i < deployments.size(); ++i)
    for (size_t s = 0; s < problem.stock.size(); ++s)
      out.used[s] += problem.units[unit[i]].gpus[s] * deployments[i].units;
  std::stable_sort(deployments.begin(), deployments.end(), [](const FleetDeployment& a, const FleetDeployment& b) {
    return a.model != b.model ? a.model < b.model : a.share > b.share;
  });
  out.deployments = std::move(deployments);
}

}  // namespace

FleetAnswer choose_plans(const Fleet& fleet, std::vector<FleetCandidate> candidates, Resources& resources) {
  FleetAnswer out;
  out.priced = set_prices(fleet, resources);
  out.candidates = candidates.size();
  out.used.assign(fleet.stock.size(), 0);
  while (out.rounds < kMostRounds) {
    const FleetProblem problem = problem_of(fleet, candidates, out.priced, resources);
    const FleetChoice choice = cheapest(problem);
    ++out.rounds;
    if (!choice.feasible) {
      out.shortage = shortage(problem);
      return out;
    }
    std::vector<size_t> unit;
    std::vector<FleetDeployment> deployments = deployments_of(problem, choice, candidates, unit);
    if (hold(deployments, unit, candidates, resources)) {
      settle(choice, std::move(deployments), problem, unit, out);
      return out;
    }
  }
  throw core::Error(
      fmt::format("{}: after {} rounds some plan still misses its targets at its rate; want more headroom",
                  fleet.origin, kMostRounds));
}

FleetAnswer plan_fleet(const Fleet& fleet, Resources& resources) {
  const bool priced = set_prices(fleet, resources);
  std::vector<std::pair<size_t, std::string>> hopeless;
  std::vector<FleetCandidate> candidates = fleet_candidates(fleet, resources, hopeless);
  FleetAnswer out;
  if (hopeless.empty()) {
    out = choose_plans(fleet, candidates, resources);
    if (out.feasible) return out;
  }
  out.priced = priced;
  out.candidates = candidates.size();
  out.used.assign(fleet.stock.size(), 0);
  // What is lacking is asked with the workers that more GPUs would hold, too.
  Fleet larger = fleet;
  for (Fleet::Stock& stock : larger.stock)
    if (stock.gpus > 0) stock.gpus = std::max<int64_t>(stock.gpus, fleet.unit_gpus);
  std::vector<std::pair<size_t, std::string>> still_hopeless;
  for (FleetCandidate& more : fleet_candidates(larger, resources, still_hopeless))
    candidates.push_back(std::move(more));
  out.hopeless = std::move(still_hopeless);
  if (out.hopeless.empty()) out.shortage = shortage(problem_of(fleet, candidates, priced, resources));
  return out;
}

}  // namespace drydock::configurator
