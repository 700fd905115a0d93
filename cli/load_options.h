#pragma once
// The options that say what load a plan is simulated under, shared by simulate and compare.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/plan_flags.h"
#include "models/plan.h"
#include "simulator/simulation.h"
#include "simulator/trace.h"

namespace drydock::cli {

// As typed; checked when the command runs, so that every error is one line naming its flag.
struct LoadOptions {
  std::string rate, concurrency, trace, format, speed, sessions, isl, osl, lengths, prefix_hit, burstiness, ramp,
      diurnal, requests, until, warmup, duration, seed = "1", replications = "1", threads;
  bool skip_bad = false, exact = false;
  bool to_server = false;  // requests go to a real one: what its front end takes passes by itself
  std::string detection, migrations, router, local_prefill, start_up, percentile, ttft, tpot, request_latency, mtbf;
  std::vector<std::string> fail, slow;
  PlanFlags plan;
};

void add_load(CLI::App& command, LoadOptions& options);
// Of these only when requests come, what they ask for, how many, and what is wanted of the answers.
void add_requests(CLI::App& command, LoadOptions& options);

// A load as asked for, the same whenever it is made with the same seed.
struct AskedLoad {
  std::string text;  // one line for people
  int64_t skip = 0;  // requests that come first and do not count
  double most_us = simulator::kNever;
  double precision = 0;   // runs until TTFT and TPOT are known to this share; 0: all of it
  double expected_s = 0;  // roughly how long it takes; 0: not known
  std::function<std::unique_ptr<simulator::Load>(uint64_t seed)> make;
};

// The plan's workload with what was asked in its place: typical lengths, and rate or concurrency where there is one.
// Throws core::Error naming the flag.
models::Workload asked_workload(const LoadOptions& options, const models::Plan& plan);
// `plan.workload` is asked_workload().
// Without a deployment a closed loop's users begin all at once.
AskedLoad asked_load(const LoadOptions& options, const models::Plan& plan, const simulator::Deployment* deployment);

// The targets given, or else those of the plan.
models::Slo asked_slo(const LoadOptions& options, const models::Plan& plan);

// "30s", "500ms", "2min", "1h", "800us" in us; with `bare_seconds` also "300". Throws core::Error naming `flag`.
double parse_span_us(std::string_view text, std::string_view flag, bool bare_seconds = false);
// A whole number from 0. Throws core::Error naming `flag`.
int64_t parse_whole(const std::string& text, std::string_view flag, int64_t most);
std::vector<std::string> split(std::string_view text, char at);

}  // namespace drydock::cli
