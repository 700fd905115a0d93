#pragma once
// Simulates candidates, the promising first, and stops when the rest provably can't be among the best.
#include <optional>
#include <vector>

#include "configurator/candidates.h"

namespace drydock::configurator {

// One candidate's way through the search.
struct Trial {
  const Priced* priced = nullptr;
  int gpus = 0;
  double price_per_hour = 0;  // of all its GPUs; of equal prices where there are none
  double least_cost = 0;      // careful_cost() of a request, in units of price: no schedule is cheaper
  bool impossible = false;    // a target is out of reach of the fastest step
  bool implied = false;       // not tried: the same plan with another batch says that it misses or is no better
  bool tried = false;
  std::optional<simulator::Served> served;  // nullopt although tried: the rate is more than it can serve
  bool meets = false;
  double tightness = 0;  // largest ratio of a figure to its target
  double cost = 0;       // as least_cost, as simulated
};

// What three deployments in four cost at most, as the 80 % band of the prediction has it: what plans are ranked by, so
// that one of which less is known has to be better by more.
double careful_cost(const core::Figure& cost);

// What a target is held against: the tail where there is one, else the mean. `index`: 0 TTFT, 1 TPOT, 2 request
// latency.
core::Figure figure_of(const simulator::Served& served, const models::Workload& workload, int index);

// One trial a candidate, in their order. Every candidate that could be among the `top` best shapes that meet the
// targets was tried, unless the question does not prune: then all were.
std::vector<Trial> judge(const Question& question, const std::vector<Priced>& candidates, Resources& resources);

// The whole simulation of one candidate, whether or not it meets the targets. nullopt: the rate is more than it can
// serve.
std::optional<simulator::Served> simulate_whole(const Question& question, const Priced& priced);

// Plans that differ only in batch, budget or number of workers are one shape.
using Shape = std::vector<int>;
Shape shape_of(const Priced& priced);

}  // namespace drydock::configurator
