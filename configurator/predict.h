#pragma once
// One plan, judged: the same steps whether the plan comes from the search, from a file or from a row of points.
#include <optional>
#include <string>
#include <vector>

#include "configurator/resources.h"
#include "models/plan.h"
#include "simulator/simulation.h"

namespace drydock::configurator {

// Where the time of one pool's typical step goes, and what the figures rest on.
struct PoolDetail {
  models::Role role{};
  models::Role phase{};                                 // prefill or decode: a worker has both
  double batch = 0;                                     // sequences in the step
  std::vector<simulator::OpShare> ops;                  // largest first
  std::array<double, core::kProvenances> provenance{};  // shares of the step's kernel time
  models::StageMemory memory;                           // of the fullest GPU [bytes]
  double kv_tokens = 0;                                 // of one attention-DP rank
  double memory_bytes = 0;                              // of the GPU
  std::string kernel_version, borrowed_from;
  // (max - mean) / mean of the GPUs' expert loads over many tokens, contiguous and as placed; without: evenly loaded.
  struct ExpertBalance {
    int slots = 0;
    double before = 0, after = 0;
  };
  std::optional<ExpertBalance> experts;
};

// The formats a backend runs with on a system. KV "auto" is what its checkpoints and launch recipes ask for.
models::Precision deployed_precision(const models::Architecture& architecture, const std::string& precision,
                                     const std::string& kv_precision, models::Backend backend,
                                     const core::Hardware& hardware);

// `assumed`: the plan is known to have run, so that only weights larger than the GPU speak against it; the memory
// model's own idea of buffers does not.
enum class Fit : uint8_t { required, assumed };

// How users' times are found: request by request in the event simulator, or by closed forms for the mean.
enum class Method : uint8_t { simulate, analytic };

// A plan's engines, ready for the simulator. `deployment` points into `engines`.
struct Instances {
  std::vector<std::unique_ptr<simulator::Engine>> engines;
  simulator::Deployment deployment;
};
// Throws core::Error when the model, a system or the parallelism is not possible, or the plan does not fit.
// `changed`: figures of the plan's backend in place of the resources'; live as long as the engines. `remembers`: they
// will be repriced.
Instances instances_of(const models::Plan& plan, Resources& resources, Fit fit = Fit::required,
                       const simulator::BackendModel* changed = nullptr, bool remembers = false);

// What the engines of a plan would do under its workload. nullopt: the rate is more than the plan can serve.
// Throws core::Error when the model, a system or the parallelism is not possible, or the plan does not fit.
std::optional<models::Prediction> predict(const models::Plan& plan, Resources& resources, Fit fit = Fit::required,
                                          Method method = Method::simulate);

// One or two entries a pool.
std::vector<PoolDetail> explain(const models::Plan& plan, Resources& resources, Fit fit = Fit::required);

// The experts of a pool that spreads them over GPUs unevenly loaded.
struct PlacedExperts {
  models::Role role{};
  std::shared_ptr<const simulator::ExpertLoad> load;
  double bytes_per_expert = 0;  // of one expert of one layer, as one GPU holds it
  double bytes_per_s = 0;       // at which a GPU can be sent some
};
std::vector<PlacedExperts> placed_experts(const models::Plan& plan, Resources& resources);

// What lies where: for each pool with redundant expert slots its role and, as JSON, the expert of each slot in each
// layer. Empty when no pool has any.
std::vector<std::pair<models::Role, std::string>> expert_placements(const models::Plan& plan, Resources& resources);

// The figures of a plan from what its pools serve; `price_per_hour`: of all its GPUs together.
models::Prediction prediction_of(const simulator::Served& served, const models::Workload& workload, int gpus,
                                 std::optional<double> price_per_hour);

simulator::Targets targets_of(const models::Slo& slo);

// Price of all GPUs of the plan per hour; nullopt unless every system has one.
std::optional<double> price_per_hour(const models::Plan& plan, Resources& resources);

}  // namespace drydock::configurator
