#pragma once
// A fleet: several models, each with a load and targets, on a stock of GPUs of several types. docs/fleet.md describes
// the file and the method.
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "configurator/fleet_program.h"
#include "configurator/resources.h"
#include "configurator/search.h"
#include "configurator/yaml_question.h"

namespace drydock::configurator {

struct Fleet {
  struct Stock {
    NamedLine system;
    int64_t gpus = 0;
    std::optional<double> price;  // of a GPU and hour; unset: the system's own
  };
  struct Model {
    std::string name;  // of its plans
    NamedLine model;
    std::string precision = "auto", kv_precision = "auto";
    std::optional<models::Backend> backend;
    models::Workload workload;  // with a rate
    models::Slo slo;
  };
  std::string origin;
  std::vector<Stock> stock;
  std::vector<Model> models;
  ModeChoice mode = ModeChoice::both;
  bool mixed_pools = false;  // prefill and decode workers may be of different types; many more searches
  double headroom = 0;       // share of each plan's capacity that is left free
  int unit_gpus = 32;        // of a worker, or of a group of prefill and decode workers, at most
};

// Throws core::Error naming `origin`, line and field.
Fleet parse_fleet(std::string_view yaml, std::string_view origin);
Fleet read_fleet(const std::filesystem::path& file);

// A plan that can be had any number of times, and what it keeps up.
struct FleetCandidate {
  size_t model = 0;
  models::Plan plan;          // of one unit
  std::vector<int64_t> gpus;  // by entry of the stock
  double rate = 0;            // Poisson arrivals at which its users are still within the targets
};

struct FleetDeployment {
  size_t model = 0;
  models::Plan plan;  // all units together, at its share of the rate, with its prediction
  int64_t units = 0;
  double share = 0;     // of the model's requests
  double rate = 0;      // requests/s it gets
  double capacity = 0;  // and could keep up
  double cost = 0;      // per hour
};

struct FleetAnswer {
  bool feasible = false;
  bool priced = true;                        // false: no prices anywhere, and costs are numbers of GPUs
  std::vector<FleetDeployment> deployments;  // by model, the largest share first
  std::vector<int64_t> used;                 // GPUs by entry of the stock
  double cost = 0, bound = 0;                // per hour; `bound`: no choice among the candidates costs less
  int rounds = 0;                            // programs solved: after each, the plans are simulated at their rates
  size_t candidates = 0;
  // When it is not feasible: models that nothing in stock can serve within their targets, with why; where there are
  // none, what the stock lacks.
  std::vector<std::pair<size_t, std::string>> hopeless;
  std::optional<FleetShortage> shortage;
};

// Throws core::Error naming file and line when a model, a system or a load is not possible.
FleetAnswer plan_fleet(const Fleet& fleet, Resources& resources);

// The units worth choosing among, with their capacities; `why_none` gets, for each model without any, the reason.
std::vector<FleetCandidate> fleet_candidates(const Fleet& fleet, Resources& resources,
                                             std::vector<std::pair<size_t, std::string>>& why_none);

// The program and the simulation of what it chose, in turns; every model has a candidate.
FleetAnswer choose_plans(const Fleet& fleet, std::vector<FleetCandidate> candidates, Resources& resources);

// Whether a prediction is within the targets.
bool meets(const models::Prediction& prediction, const models::Slo& slo);

}  // namespace drydock::configurator
