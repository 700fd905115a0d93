#include "simulator/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "simulator/trace.h"

namespace drydock::simulator {
namespace {

constexpr double kMillion = 1e6, kUsPerHour = 3.6e9;

// All requests' values, replication after replication.
template <typename Values>
std::vector<double> pooled(const std::vector<const Outcome*>& outcomes, const Values& values) {
  std::vector<double> out;
  for (const Outcome* o : outcomes) {
    const std::vector<double>& more = values(*o->requests);
    out.insert(out.end(), more.begin(), more.end());
  }
  return out;
}

Distribution pooled_gaps(const std::vector<const Outcome*>& outcomes) {
  LogHistogram all;
  for (const Outcome* o : outcomes) all.merge(o->requests->itl_ms());
  return {all.mean(),
          all.quantile(0.5),
          all.quantile(0.9),
          all.quantile(0.95),
          all.quantile(0.99),
          all.most(),
          0,
          static_cast<int64_t>(all.count())};
}

double judged(std::vector<double> values, const Distribution& all, const Targets& targets) {
  return targets.quantile ? quantile(values, *targets.quantile) : all.mean;
}

void add_distributions(Summary& s, const std::vector<const Outcome*>& outcomes, const Targets& targets) {
  const auto fill = [&](const auto& values, Distribution& out, double* at_target) {
    const std::vector<double> all = pooled(outcomes, values);
    out = distribution(all);
    if (at_target) *at_target = judged(all, out, targets);
  };
  fill(
      [](const Recorder& r) -> auto& { return r.ttft_ms(); }, s.ttft_ms, &s.ttft_judged_ms);
  fill(
      [](const Recorder& r) -> auto& { return r.tpot_ms(); }, s.tpot_ms, &s.tpot_judged_ms);
  fill(
      [](const Recorder& r) -> auto& { return r.latency_ms(); }, s.latency_ms, &s.latency_judged_ms);
  fill(
      [](const Recorder& r) -> auto& { return r.queue_ms(); }, s.queue_ms, nullptr);
  s.itl_ms = pooled_gaps(outcomes);
}

void add_counts(Summary& s, const Outcome& o) {
  const ClusterTotals& t = o.result.totals;
  s.requests += o.requests->requests();
  s.good += o.requests->good();
  s.arrivals += o.arrivals;
  s.bad_lines += o.bad_lines;
  s.rejected += t.rejected;
  s.lost += t.lost;
  s.migrations += t.migrations;
  s.replayed_tokens += t.replayed_tokens;
  s.unfinished += t.unfinished;
  s.preemptions += t.counters.preemptions;
  s.steps += t.steps;
  s.prompt_tokens += o.requests->prompt_tokens();
  s.output_tokens += o.requests->output_tokens();
  s.saturated |= o.result.saturated;
}

void add_means(Summary& s, const Outcome& o) {
  const double n = s.replications;
  s.duration_s +=
      std::max(0.0, o.requests->last_answer_us() - std::min(o.requests->first_arrival_us(), o.end_us)) * 1e-6 / n;
  s.requests_per_s += o.result.requests_per_s / n;
  s.output_tokens_per_s += o.result.output_tokens_per_s / n;
  s.goodput_per_s += o.result.goodput_per_s / n;
  s.good_share += o.result.good_share / n;
  s.hit_rate += o.result.hit_rate / n;
}

PoolSummary pool_summary(const std::vector<const Outcome*>& outcomes, const PoolFacts& facts, size_t pool) {
  PoolSummary out;
  out.name = facts.name;
  double busy = 0, there = 0, decoding = 0, span = 0;
  for (const Outcome* o : outcomes) {
    busy += o->result.totals.busy_us[pool];
    decoding += o->result.totals.decode_sequence_us[pool];
    there += o->timeline.worker_us(pool);
    span += o->end_us;
    out.kv_mean += o->timeline.kv_mean(pool) / static_cast<double>(outcomes.size());
    out.kv_peak = std::max(out.kv_peak, o->timeline.kv_peak(pool));
  }
  out.workers = span > 0 ? there / span : 0;
  out.utilization = there > 0 ? std::min(1.0, busy / there) : 0;
  out.batch = busy > 0 ? decoding / busy : 0;
  return out;
}

// GPU hours, energy and cost, from the time that workers were there and that they were busy.
void add_resources(Summary& s, const std::vector<const Outcome*>& outcomes, const std::vector<PoolFacts>& pools) {
  double span_us = 0, joules = 0, cost = 0, tokens = 0;
  bool priced = true;
  for (const Outcome* o : outcomes) span_us += o->end_us, tokens += o->requests->all_output_tokens();
  for (size_t p = 0; p < pools.size(); ++p) {
    s.pools.push_back(pool_summary(outcomes, pools[p], p));
    const double workers_us = s.pools.back().workers * span_us;
    const double hours = workers_us * pools[p].gpus_per_worker / kUsPerHour;
    s.gpu_hours += hours;
    s.gpus += s.pools.back().workers * pools[p].gpus_per_worker;
    for (const Outcome* o : outcomes)
      joules += o->result.totals.busy_us[p] * 1e-6 * pools[p].gpus_per_worker * pools[p].power_w;
    priced &= pools[p].price_per_gpu_hour.has_value();
    cost += pools[p].price_per_gpu_hour.value_or(0) * hours;
  }
  if (!(tokens > 0)) return;
  s.kwh_per_million_tokens = joules / 3.6e6 / (tokens / kMillion);
  if (priced) s.cost_per_million_tokens = cost / (tokens / kMillion);
}

std::vector<PoolState> states(const Cluster& cluster, size_t pools) {
  std::vector<PoolState> out;
  for (size_t p = 0; p < pools; ++p) out.push_back(cluster.state(static_cast<int>(p)));
  return out;
}

}  // namespace

const char kRequestsHeader[] =
    "arrival_s,prompt_tokens,output_tokens,cached_tokens,queue_ms,ttft_ms,tpot_ms,latency_ms,worker,migrations,"
    "status\n";

void RunObserver::write_row(const RequestRecord& r) {
  const char* status = r.lost ? "lost" : r.rejected ? "rejected" : r.warmup || told_ <= skip_ ? "warmup" : "ok";
  std::string row =
      fmt::format("{:.6f},{},{},{}", r.arrival_us * 1e-6, r.prompt_tokens, r.output_tokens, r.cached_tokens);
  if (r.lost || r.rejected)
    row += ",,,,";
  else
    row += fmt::format(",{:.6f},{:.6f},{:.6f},{:.6f}", (r.started_us - r.arrival_us) * 1e-3, ttft_ms_of(r),
                       tpot_ms_of(r), (r.last_us - r.arrival_us) * 1e-3 + client_.outside_ms);
  sinks_.requests->append(row + fmt::format(",{},{},{}\n", r.worker, r.migrations, status));
}

void RunObserver::done(const RequestRecord& record) {
  Recorder::done(record);
  ++told_;
  if (!record.lost && !record.rejected) all_output_tokens_ += static_cast<double>(record.output_tokens);
  if (sinks_.requests) write_row(record);
  if (sinks_.events) sinks_.events->done(record);
  if (told_ % 1000 == 0 && sinks_.progress) sinks_.progress(told_);
}

void RunObserver::ran(int pool, int worker, const Run& run, int64_t prompt_tokens) {
  if (sinks_.events) sinks_.events->ran(pool, worker, run, prompt_tokens);
}

Outcome run_watched(const Deployment& deployment, const models::Workload& workload, Scenario scenario,
                    std::unique_ptr<Load> load, const Watch& watch) {
  const auto* trace = dynamic_cast<const Trace*>(load.get());
  CountedLoad counted(std::move(load), scenario.most_us);
  scenario.most_us = kNever;
  scenario.hash_tokens = counted.hash_tokens();
  Outcome out;
  out.requests = std::make_unique<RunObserver>(watch.recording, counted, watch.sinks);
  const size_t pools = deployment.parts.size();
  scenario.prepare = [&](Cluster& cluster) {
    out.timeline.add(0, states(cluster, pools));
    cluster.every(watch.sample_us, [&](double now_us) { out.timeline.add(now_us, states(cluster, pools)); });
    if (watch.prepare) watch.prepare(cluster, counted, *out.requests);
  };
  out.result = simulate(deployment, workload, scenario, counted, *out.requests);
  out.end_us = out.result.totals.end_us;
  out.timeline.close(out.end_us);
  out.arrivals = counted.taken();
  if (trace) out.bad_lines = trace->bad_lines();
  return out;
}

Summary summarize(const std::vector<const Outcome*>& outcomes, const std::vector<PoolFacts>& pools,
                  const Targets& targets) {
  Summary s;
  s.replications = static_cast<int>(outcomes.size());
  add_distributions(s, outcomes, targets);
  for (const Outcome* o : outcomes) {
    add_counts(s, *o);
    add_means(s, *o);
    s.precise = s.precise && o->requests->precise();
  }
  add_resources(s, outcomes, pools);
  s.output_tokens_per_s_per_gpu = s.gpus > 0 ? s.output_tokens_per_s / s.gpus : 0;
  return s;
}

core::Json distribution_json(const Distribution& d) {
  return {{"mean", d.mean}, {"mean_half_width", d.mean_half_width},
          {"p50", d.p50},   {"p90", d.p90},
          {"p95", d.p95},   {"p99", d.p99},
          {"max", d.most},  {"count", d.count}};
}

core::Json summary_json(const Summary& s) {
  core::Json pools = core::Json::array();
  for (const PoolSummary& p : s.pools)
    pools.push_back({{"name", p.name},
                     {"workers", p.workers},
                     {"utilization", p.utilization},
                     {"decoding", p.batch},
                     {"kv_mean", p.kv_mean},
                     {"kv_peak", p.kv_peak}});
  core::Json out = {{"replications", s.replications},
                    {"ttft_ms", distribution_json(s.ttft_ms)},
                    {"tpot_ms", distribution_json(s.tpot_ms)},
                    {"itl_ms", distribution_json(s.itl_ms)},
                    {"request_latency_ms", distribution_json(s.latency_ms)},
                    {"queue_ms", distribution_json(s.queue_ms)},
                    {"arrivals", s.arrivals},
                    {"requests", s.requests},
                    {"rejected", s.rejected},
                    {"bad_lines", s.bad_lines},
                    {"lost", s.lost},
                    {"unfinished", s.unfinished},
                    {"migrations", s.migrations},
                    {"replayed_tokens", s.replayed_tokens},
                    {"preemptions", s.preemptions},
                    {"duration_s", s.duration_s},
                    {"requests_per_s", s.requests_per_s},
                    {"output_tokens_per_s", s.output_tokens_per_s},
                    {"output_tokens_per_s_per_gpu", s.output_tokens_per_s_per_gpu},
                    {"goodput_per_s", s.goodput_per_s},
                    {"good_share", s.good_share},
                    {"prefix_hit_rate", s.hit_rate},
                    {"prompt_tokens", s.prompt_tokens},
                    {"output_tokens", s.output_tokens},
                    {"gpus", s.gpus},
                    {"gpu_hours", s.gpu_hours},
                    {"pools", pools},
                    {"kwh_per_million_tokens", s.kwh_per_million_tokens},
                    {"saturated", s.saturated}};
  if (s.cost_per_million_tokens) out["cost_per_million_tokens"] = *s.cost_per_million_tokens;
  return out;
}

}  // namespace drydock::simulator
