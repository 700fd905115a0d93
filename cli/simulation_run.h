#pragma once
// Plans put under a load and simulated, several runs at a time.
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/fault_options.h"
#include "cli/load_options.h"
#include "configurator/predict.h"
#include "simulator/report.h"

namespace drydock::cli {

// All that a plan's runs have in common.
struct Stage {
  models::Plan plan;  // with the workload asked for
  configurator::Instances instances;
  AskedLoad load;
  simulator::Scenario scenario;  // without failures
  simulator::Targets targets;
  std::vector<simulator::PoolFacts> pools;
  std::vector<double> start_up_us;
  uint64_t seed = 1;
  int replications = 1;
};

// Reads the plan and all options but those of failures. Throws core::Error naming file or flag.
Stage stage_of(const std::string& plan_file, const LoadOptions& options, configurator::Resources& resources);

// One run of a stage.
struct Job {
  const Stage* stage = nullptr;
  const simulator::Deployment* deployment = nullptr;
  std::vector<simulator::Failure> failures;
  int replication = 0;
  simulator::Sinks sinks;
  std::function<void(simulator::Cluster&, const simulator::CountedLoad&, const simulator::Recorder&)> prepare;
};
// Outcomes in the order of jobs, whatever `threads`. Throws what the first job that failed threw.
std::vector<simulator::Outcome> run_jobs(const std::vector<Job>& jobs, int threads);
int threads_of(const LoadOptions& options);

// Jobs of all replications, with these failures' options or none.
std::vector<Job> jobs_of(const Stage& stage, const LoadOptions& options, bool with_faults);
simulator::Summary summary_of(const Stage& stage, const std::vector<simulator::Outcome>& outcomes, size_t from,
                              size_t count);

// A line on stderr while it runs, if stderr is a terminal; gone with the object.
class Progress {
 public:
  explicit Progress(std::string what);
  ~Progress();
  void told(int64_t requests);

 private:
  std::string what_;
  bool terminal_, shown_ = false;
  std::chrono::steady_clock::time_point next_{};
};

}  // namespace drydock::cli
