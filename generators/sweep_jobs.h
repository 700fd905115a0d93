#pragma once
// A sweep cut into shards, as a Slurm array and as a Kubernetes Indexed Job.
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "generators/target.h"

namespace drydock::generators {

struct SweepJobs {
  std::string yaml;                             // the sweep's file, word for word
  std::string name;                             // of the jobs; any text
  int64_t shards = 1;                           // 1 to kMostSweepShards
  std::map<std::string, std::string> settings;  // of sweep_job_settings()
  std::string version;                          // of drydock
};
inline constexpr int64_t kMostSweepShards = 10'000;  // Kubernetes' completions go further, Slurm's default array not

std::span<const Setting> sweep_job_settings();

// Files below "slurm/" and "k8s/", to be submitted from there. Throws core::Error on an unknown setting, and on a value
// that the format has no way to hold.
std::vector<OutputFile> slurm_sweep(const SweepJobs& jobs);
std::vector<OutputFile> k8s_sweep(const SweepJobs& jobs);

}  // namespace drydock::generators
