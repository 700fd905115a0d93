#include <CLI/CLI.hpp>

#include "cli/load_options.h"

namespace drydock::cli {
namespace {

void add_when(CLI::App& command, LoadOptions& o) {
  const char* group = "When requests come (default: the plan's workload)";
  command.add_option("--rate", o.rate, "requests/s, Poisson")->group(group);
  command.add_option("--concurrency", o.concurrency, "requests in flight, each followed by the next")->group(group);
  command.add_option("--trace", o.trace, "replay a recorded trace")->type_name("FILE")->group(group);
  command.add_option("--sessions", o.sessions, "conversations: N[,rate=1,turns=4,think=10s,system=0,most=TOKENS]")
      ->group(group);
  command.add_option("--ramp", o.ramp, "from:to:over, requests/s and a time: 2:20:300s")->group(group);
  command.add_option("--diurnal", o.diurnal, "amplitude:period around --rate: 0.5:24h")->group(group);
  command.add_option("--burstiness", o.burstiness, "gamma shape of the gaps: 1 Poisson, below 1 bursts")->group(group);
  command.add_option("--format", o.format, "mooncake, azure or burstgpt (default: by the first line)")->group(group);
  command.add_option("--speed", o.speed, "2: the trace at twice its rate (default: 1)")->group(group);
  command.add_flag("--skip-bad", o.skip_bad, "pass over bad lines of the trace, and count them")->group(group);
}

void add_what(CLI::App& command, LoadOptions& o) {
  const char* group = "What they ask for";
  command.add_option("--isl", o.isl, "input tokens (default: the plan's)")->group(group);
  command.add_option("--osl", o.osl, "output tokens (default: the plan's)")->group(group);
  command
      .add_option("--lengths", o.lengths,
                  "fixed:2000,500 uniform:1600-2000,400-500 lognormal:2000/0.8,500/1.2 empirical:F.csv")
      ->group(group);
  command.add_option("--prefix-hit", o.prefix_hit, "share of each prompt that all have in common")->group(group);
}

void add_extent(CLI::App& command, LoadOptions& o) {
  const char* group = "How long";
  command.add_option("--requests", o.requests, "requests that count (default: enough for a 95th percentile)")
      ->group(group);
  command
      .add_option("--until", o.until,
                  "ends once TTFT and TPOT, means and judged percentile, are known to this: 2% (at most --requests)")
      ->group(group);
  command.add_option("--warmup", o.warmup, "requests before them (default: as recommend; 0 with --requests)")
      ->group(group);
  command.add_option("--duration", o.duration, "nothing arrives after this time")->group(group);
  command.add_option("--seed", o.seed, "of all random numbers")->capture_default_str()->group(group);
}

void add_runs(CLI::App& command, LoadOptions& o) {
  const char* group = "How long";
  command.add_option("--replications", o.replications, "runs with seeds SEED, SEED + 1, ...")
      ->capture_default_str()
      ->group(group);
  command.add_option("--threads", o.threads, "cores for several runs; the answer does not depend on it (default: all)")
      ->group(group);
  command.add_flag("--exact", o.exact, "every step by itself: slow, for checking")->group(group);
}

void add_faults(CLI::App& command, LoadOptions& o) {
  const char* group = "What goes wrong";
  command
      .add_option("--fail", o.fail, "POOL/INDEX@TIME[+DOWN]: worker/1@10s+20s dies at 10 s and serves again after 20 s")
      ->group(group);
  command.add_option("--mtbf", o.mtbf, "mean time between the failures of a worker, exponential: 1h")->group(group);
  command.add_option("--slow", o.slow, "POOL/INDEX@TIMExFACTOR[+TIME]: worker/0@10sx2+30s is half as fast for 30 s")
      ->group(group);
  command.add_option("--detection", o.detection, "from a death to its being noticed (default: 1s)")->group(group);
  command.add_option("--migrations", o.migrations, "how often a request may move to another worker (default: 3)")
      ->group(group);
  command
      .add_option("--start-up", o.start_up,
                  "until a restarted or added worker serves (default: a GPU's weights at 2 GB/s)")
      ->group(group);
}

void add_targets(CLI::App& command, LoadOptions& o, const char* group) {
  command.add_option("--ttft", o.ttft, "target, ms or with unit (default: the plan's)")->group(group);
  command.add_option("--tpot", o.tpot, "target (default: the plan's)")->group(group);
  command.add_option("--request-latency", o.request_latency, "target (default: the plan's)")->group(group);
  command.add_option("--percentile", o.percentile, "at which targets are judged: p95 and so on, or mean")->group(group);
}

void add_judged(CLI::App& command, LoadOptions& o) {
  const char* group = "How it is served and judged";
  command
      .add_option("--router", o.router,
                  "round_robin, least_outstanding_tokens, power_of_two, kv_aware (default: the plan's)")
      ->group(group);
  add_plan_flags(command, o.plan, "the plan's", group);
  command.add_option("--local-prefill", o.local_prefill, "decode workers compute shorter prompts themselves (tokens)")
      ->group(group);
  add_targets(command, o, group);
}

}  // namespace

void add_load(CLI::App& command, LoadOptions& options) {
  add_when(command, options);
  add_what(command, options);
  add_extent(command, options);
  add_runs(command, options);
  add_faults(command, options);
  add_judged(command, options);
}

void add_requests(CLI::App& command, LoadOptions& options) {
  add_when(command, options);
  add_what(command, options);
  add_extent(command, options);
  add_targets(command, options, "How it is judged");
}

}  // namespace drydock::cli
