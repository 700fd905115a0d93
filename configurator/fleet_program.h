#pragma once
// Which plans serve several models from a stock of GPUs at the lowest cost, as an integer program.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace drydock::configurator {

// Something that can be bought any number of times: a worker, or a group of prefill and decode workers.
struct FleetUnit {
  size_t model = 0;
  std::vector<int64_t> gpus;  // by entry of the stock
  double rate = 0;            // requests/s it keeps up, above 0
  double cost = 0;            // per hour
};

struct FleetProblem {
  std::vector<int64_t> stock;  // GPUs of each type
  std::vector<double> demand;  // requests/s of each model, above 0
  std::vector<FleetUnit> units;
};

struct FleetChoice {
  bool feasible = false;
  std::vector<int64_t> counts;  // of each unit
  double cost = 0;
  double bound = 0;  // nothing is cheaper than this; `cost` where the choice is proven to be the best
};
// Throws core::Error when the solver can't be had.
FleetChoice cheapest(const FleetProblem& problem);

// What an infeasible problem lacks.
struct FleetShortage {
  double share = 0;  // of every model's demand that the stock serves
  // Of each model's demand, once all others are served in full; nullopt: these alone are too much.
  std::vector<std::optional<double>> share_of;
  std::vector<int64_t> more;                        // GPUs of each type to add together, the fewest
  std::vector<std::optional<int64_t>> more_of_one;  // of this type alone; nullopt: no number of them is enough
  bool possible = true;                             // false: some model has no unit at all
};
FleetShortage shortage(const FleetProblem& problem);

}  // namespace drydock::configurator
