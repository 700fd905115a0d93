#pragma once
// A policy that changes the number of workers, beside fixed numbers of them.
#include <string>
#include <vector>

#include "cli/simulation_run.h"

namespace drydock::cli {

struct ScaledRun {
  std::string name;          // "hpa", "fixed 2", "fixed 1+3"
  std::vector<int> workers;  // per pool; of a policy, those it starts with
  int64_t changes = 0;
  simulator::Summary summary;
};

struct AutoscaleStudy {
  std::vector<ScaledRun> runs;               // the policy first
  std::vector<simulator::Outcome> outcomes;  // of the policy
};

// The policy's runs, with `sinks` for the first replication; then fixed numbers of workers: the policy's least, those
// it starts with, what it used on average, and its most. Throws core::Error naming the policy's file and field, or
// --autoscale when there is no target to judge by.
AutoscaleStudy study_autoscale(const Stage& stage, const std::string& policy_file, const simulator::Sinks& sinks,
                               int threads);

core::Json study_json(const AutoscaleStudy& study);
void print_study(const AutoscaleStudy& study);

}  // namespace drydock::cli
