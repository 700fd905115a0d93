#pragma once
// Finds the deployments that meet a service level at the lowest cost.
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "configurator/predict.h"
#include "configurator/resources.h"
#include "models/plan.h"

namespace drydock::configurator {

enum class ModeChoice : uint8_t { agg, disagg, both };
enum class Goal : uint8_t { throughput_per_gpu, fewest_gpus };

struct Question {
  std::string model, precision = "auto", kv_precision = "auto";
  std::string system;                      // of workers and of prefill
  std::string decode_system;               // empty: the same
  int gpus = 8;                            // at most, over both pools
  std::optional<models::Backend> backend;  // nullopt: try all
  std::string speculative;                 // of all candidates; as in a plan
  models::Experts experts;                 // likewise
  models::Workload workload;
  models::Slo slo;
  ModeChoice mode = ModeChoice::both;
  Goal goal = Goal::throughput_per_gpu;
  int top = 5;
  Method method = Method::simulate;
  bool prune = true;  // false: simulate what can't win, too
};

struct Counts {
  // enumerated = illegal + out_of_memory + overloaded + priced. A candidate is one choice of backend, parallel sizes,
  // token budget, batch limit and worker counts.
  int64_t enumerated = 0, illegal = 0, out_of_memory = 0, overloaded = 0, priced = 0, meeting_slo = 0;
  // Of the priced: simulated; not worth it because a bound shows that they can't be among the best; and not worth it
  // because the same plan with another batch, which was simulated, makes it improbable.
  int64_t simulated = 0, beaten = 0, implied = 0;
  std::map<std::string, int64_t> reasons;  // why candidates were illegal or did not fit
};

struct Ranked {
  models::Plan plan;  // prediction filled in
  bool meets_slo = false;
  // Largest ratio of a predicted figure to its target, and that figure's name; 0 and "" without targets.
  double tightness = 0;
  std::string binding;
};

struct Answer {
  std::vector<Ranked> plans;    // best first; those that meet the targets, at most `top`, each of another shape
  std::vector<Ranked> nearest;  // when none meets: best for each target, and the least tight of all first
  // By closed forms for the mean, whatever the method: no other plan has more tokens/s/user and more tokens/s/GPU; by
  // tokens/s/user.
  std::vector<Ranked> pareto;
  Counts counts;
};

// The target that a prediction is nearest to, and its figure (of the tail where there is one) over that target's limit.
struct Binding {
  double tightness = 0;
  const char* target = "";
};
Binding binding_of(const models::Prediction& prediction, const models::Slo& slo);

// Throws core::Error when the model, a system or the workload is not possible.
Answer recommend(const Question& question, Resources& resources);

}  // namespace drydock::configurator
