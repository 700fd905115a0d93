#include "cli/simulation_run.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <exception>
#include <thread>

#include "core/error.h"

namespace drydock::cli {
namespace {

// Samples of a run whose length is known are about this many; of another one every kSampleUs.
constexpr double kSamples = 1000, kSampleUs = 2e5;

scheduler::RouterConfig router_of(const LoadOptions& o, const models::Plan& plan) {
  const std::string text = o.router.empty() ? plan.router_policy : o.router;
  const auto policy = scheduler::parse_router_policy(text);
  if (!policy)
    throw core::Error(fmt::format("--router '{}': want round_robin, least_outstanding_tokens, power_of_two or kv_aware",
                                  text.substr(0, 60)));
  scheduler::RouterConfig out;
  out.policy = *policy;
  return out;
}

simulator::Scenario scenario_of(const LoadOptions& o) {
  simulator::Scenario out;
  if (!o.detection.empty()) out.detection_us = parse_span_us(o.detection, "--detection");
  if (!o.migrations.empty()) out.migration_limit = static_cast<int>(parse_whole(o.migrations, "--migrations", 1000));
  if (!o.local_prefill.empty())
    out.local_prefill_tokens = parse_whole(o.local_prefill, "--local-prefill", simulator::kMostTokens);
  out.exact = o.exact;
  return out;
}

simulator::Targets targets_of(const models::Slo& slo) {
  simulator::Targets out{slo.ttft_ms, slo.tpot_ms, slo.request_latency_ms, {}};
  if (slo.percentile) out.quantile = *slo.percentile / 100;
  return out;
}

void check_context(const LoadOptions& o, const models::Plan& plan, configurator::Resources& resources) {
  const models::Architecture& a = resources.model(plan.model);
  const models::Workload& w = plan.workload;
  if (!o.trace.empty() || w.isl + w.osl <= a.max_context) return;
  const std::string flag = o.lengths.empty() ? "--isl and --osl:" : "--lengths: prompts and answers of";
  throw core::Error(fmt::format("{} {} and {} tokens are more than the context of {}, {} tokens", flag, w.isl, w.osl,
                                a.name, a.max_context));
}

simulator::Outcome run_job(const Job& job) {
  const Stage& stage = *job.stage;
  const uint64_t seed = stage.seed + static_cast<uint64_t>(job.replication);
  simulator::Deployment deployment = *job.deployment;
  deployment.router.seed = seed;
  simulator::Scenario scenario = stage.scenario;
  scenario.failures = job.failures;
  scenario.most_us = stage.load.most_us;
  const models::Workload& w = stage.plan.workload;
  const simulator::Part& front = deployment.parts.front();
  simulator::Watch watch;
  watch.recording.client = {front.engine->outside_ms(w.concurrency.value_or(0) / std::max(1, front.replicas)) +
                                front.engine->backend().hand_over(deployment.parts.size() > 1),
                            w.stream_interval};
  watch.recording.targets = stage.targets;
  watch.recording.skip = stage.load.skip;
  watch.recording.precision = stage.load.precision;
  watch.sample_us =
      stage.load.expected_s > 0 ? std::clamp(stage.load.expected_s * 1e6 / kSamples, 1e3, 1e7) : kSampleUs;
  // The cluster is patient with a scaler for a number of samples.
  if (job.prepare) watch.sample_us = std::max(watch.sample_us, 1e6);
  watch.sinks = job.sinks;
  watch.prepare = job.prepare;
  return simulator::run_watched(deployment, w, std::move(scenario), stage.load.make(seed), watch);
}

}  // namespace

Stage stage_of(const std::string& plan_file, const LoadOptions& o, configurator::Resources& resources) {
  Stage out;
  out.plan = models::read_plan(plan_file);
  out.plan.slo = asked_slo(o, out.plan);
  out.plan.workload = asked_workload(o, out.plan);
  check_context(o, out.plan, resources);
  apply(o.plan, resources.model(out.plan.model), plan_file, out.plan.speculative, out.plan.experts);
  out.instances = configurator::instances_of(out.plan, resources);
  out.instances.deployment.router = router_of(o, out.plan);
  out.load = asked_load(o, out.plan, &out.instances.deployment);
  out.scenario = scenario_of(o);
  out.scenario.steady_after = out.load.skip;
  out.targets = targets_of(out.plan.slo);
  out.start_up_us = start_up_us(o, out.instances.deployment);
  out.seed = static_cast<uint64_t>(parse_whole(o.seed, "--seed", int64_t{1} << 53));
  out.replications = static_cast<int>(parse_count(o.replications, "--replications", 1000));
  if (out.replications > 1 && !o.trace.empty() && o.mtbf.empty())
    throw core::Error("--replications: a trace is the same every time; want 1, or --mtbf for failures that differ");
  if (!o.local_prefill.empty() && out.plan.mode != models::Mode::disagg)
    throw core::Error("--local-prefill: goes with a plan of prefill and decode pools");
  for (const models::Pool& pool : out.plan.pools) {
    const models::System& system = resources.system(pool.system);
    out.pools.push_back(
        {std::string(models::name(pool.role)), pool.parallelism.gpus(), system.power_w, system.price_per_gpu_hour});
  }
  return out;
}

int threads_of(const LoadOptions& o) {
  const int there = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  return o.threads.empty() ? there : static_cast<int>(parse_count(o.threads, "--threads", 1024));
}

std::vector<Job> jobs_of(const Stage& stage, const LoadOptions& o, bool with_faults) {
  std::vector<Job> out;
  for (int i = 0; i < stage.replications; ++i) {
    Job job;
    job.stage = &stage;
    job.deployment = &stage.instances.deployment;
    job.replication = i;
    if (with_faults) job.failures = faults(o, stage.plan, stage.start_up_us, stage.seed + static_cast<uint64_t>(i));
    out.push_back(std::move(job));
  }
  return out;
}

std::vector<simulator::Outcome> run_jobs(const std::vector<Job>& jobs, int threads) {
  std::vector<simulator::Outcome> out(jobs.size());
  std::vector<std::exception_ptr> errors(jobs.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i; (i = next++) < jobs.size();) try {
        out[i] = run_job(jobs[i]);
      } catch (...) {
        errors[i] = std::current_exception();
      }
  };
  std::vector<std::thread> others;
  for (size_t i = 1; i < std::min(jobs.size(), static_cast<size_t>(threads)); ++i) others.emplace_back(work);
  work();
  for (std::thread& thread : others) thread.join();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
  return out;
}

simulator::Summary summary_of(const Stage& stage, const std::vector<simulator::Outcome>& outcomes, size_t from,
                              size_t count) {
  std::vector<const simulator::Outcome*> some;
  for (size_t i = from; i < from + count; ++i) some.push_back(&outcomes[i]);
  return simulator::summarize(some, stage.pools, stage.targets);
}

Progress::Progress(std::string what) : what_(std::move(what)), terminal_(::isatty(STDERR_FILENO) != 0) {}

void Progress::told(int64_t requests) {
  constexpr auto kPause = std::chrono::milliseconds(100);
  const auto now = std::chrono::steady_clock::now();
  if (!terminal_ || now < next_) return;
  next_ = now + kPause;
  shown_ = true;
  fmt::print(stderr, "\r{}: {} requests\033[K", what_, requests);
  std::fflush(stderr);
}

Progress::~Progress() {
  if (shown_) fmt::print(stderr, "\r\033[K");
}

}  // namespace drydock::cli
