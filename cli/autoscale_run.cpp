#include "cli/autoscale_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "simulator/autoscale.h"

namespace drydock::cli {
namespace {

using simulator::Deployment;
using simulator::Scaler;

std::vector<int> workers_of(const Deployment& d) {
  std::vector<int> out;
  for (const simulator::Part& part : d.parts) out.push_back(part.replicas);
  return out;
}

std::vector<scheduler::PoolLimits> limits_of(const scheduler::ScalingPolicy& policy) {
  if (policy.disaggregated) return {policy.prefill, policy.decode};
  return {policy.decode};
}

// Without repeats, in order of size.
std::vector<std::vector<int>> fixed_counts(const scheduler::ScalingPolicy& policy, const simulator::Summary& used) {
  const auto limits = limits_of(policy);
  std::vector<std::vector<int>> out(4);
  for (size_t p = 0; p < limits.size(); ++p) {
    out[0].push_back(std::max(1, limits[p].min));
    out[1].push_back(std::max(1, limits[p].initial));
    out[2].push_back(std::max(1, static_cast<int>(std::lround(used.pools[p].workers))));
    out[3].push_back(std::max(1, limits[p].max));
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

std::string fixed_name(const std::vector<int>& workers) {
  std::string out;
  for (const int n : workers) out += (out.empty() ? "fixed " : "+") + std::to_string(n);
  return out;
}

std::vector<Job> jobs_on(const Stage& stage, const Deployment& deployment) {
  std::vector<Job> out = jobs_of(stage, {}, false);
  for (Job& job : out) job.deployment = &deployment;
  return out;
}

void add_fixed(AutoscaleStudy& study, const Stage& stage, const std::vector<std::vector<int>>& counts, int threads) {
  std::vector<Deployment> deployments;
  for (const auto& workers : counts) {
    deployments.push_back(stage.instances.deployment);
    for (size_t p = 0; p < workers.size(); ++p) deployments.back().parts[p].replicas = workers[p];
  }
  std::vector<Job> jobs;
  for (const Deployment& d : deployments)
    for (Job& job : jobs_on(stage, d)) jobs.push_back(std::move(job));
  const auto outcomes = run_jobs(jobs, threads);
  const auto each = static_cast<size_t>(stage.replications);
  for (size_t i = 0; i < counts.size(); ++i)
    study.runs.push_back({fixed_name(counts[i]), counts[i], 0, summary_of(stage, outcomes, i * each, each)});
}

}  // namespace

AutoscaleStudy study_autoscale(const Stage& stage, const std::string& policy_file, const simulator::Sinks& sinks,
                               int threads) {
  if (!stage.targets.any())
    throw core::Error("--autoscale: want a target to judge by: --ttft, --tpot or --request-latency");
  const scheduler::ScalingPolicy policy = scheduler::read_scaling_policy(policy_file);
  const Deployment start = simulator::scaled_deployment(stage.instances.deployment, policy, policy_file);
  const simulator::Autoscaling scaling{policy, stage.start_up_us, stage.targets.tpot_ms, 0};
  std::vector<Job> jobs = jobs_on(stage, start);
  std::vector<std::shared_ptr<Scaler>> scalers;
  for (Job& job : jobs) {
    const auto scaler = std::make_shared<Scaler>(scaling, start, stage.plan.workload);
    scalers.push_back(scaler);
    job.prepare = [scaler](simulator::Cluster& cluster, const simulator::CountedLoad& load,
                           const simulator::Recorder& requests) { scaler->attach(cluster, load, requests); };
  }
  jobs.front().sinks = sinks;
  AutoscaleStudy study;
  study.outcomes = run_jobs(jobs, threads);
  int64_t changes = 0;
  for (const auto& scaler : scalers) changes += scaler->changes();
  study.runs.push_back({std::string(scheduler::name(policy.kind)), workers_of(start), changes,
                        summary_of(stage, study.outcomes, 0, study.outcomes.size())});
  add_fixed(study, stage, fixed_counts(policy, study.runs.front().summary), threads);
  return study;
}

core::Json study_json(const AutoscaleStudy& study) {
  core::Json out = core::Json::array();
  for (const ScaledRun& run : study.runs) {
    core::Json workers = core::Json::array();
    for (const auto& pool : run.summary.pools) workers.push_back(pool.workers);
    out.push_back({{"name", run.name},
                   {"starts_with", run.workers},
                   {"workers", workers},
                   {"changes", run.changes},
                   {"good_share", run.summary.good_share},
                   {"goodput_per_s", run.summary.goodput_per_s},
                   {"gpu_hours", run.summary.gpu_hours},
                   {"ttft_p95_ms", run.summary.ttft_ms.p95},
                   {"tpot_p95_ms", run.summary.tpot_ms.p95},
                   {"saturated", run.summary.saturated}});
  }
  return out;
}

void print_study(const AutoscaleStudy& study) {
  Table table({"workers", "mean", "changes", "within targets", "goodput/s", "TTFT p95 ms", "TPOT p95 ms", "GPU hours"},
              "lrrrrrrr");
  for (const ScaledRun& run : study.runs) {
    std::string mean;
    for (const auto& pool : run.summary.pools) mean += (mean.empty() ? "" : "+") + human(pool.workers);
    table.row({run.name, mean, std::to_string(run.changes), fmt::format("{:.1f}%", run.summary.good_share * 100),
               human(run.summary.goodput_per_s), human(run.summary.ttft_ms.p95), human(run.summary.tpot_ms.p95),
               fmt::format("{:.3f}", run.summary.gpu_hours)});
  }
  fmt::print("Scaling, beside fixed numbers of workers (GPU hours count starting and draining workers):\n{}\n",
             table.text());
}

}  // namespace drydock::cli
