#include "scheduler/autoscaler.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/text.h"

namespace drydock::scheduler {
namespace {

constexpr std::string_view kScalingNames[] = {"fixed", "hpa", "planner"};
constexpr int kMaxWorkers = 100'000;
constexpr double kDay = 86'400;

std::string one_of(std::initializer_list<std::string_view> names, std::string_view found) {
  std::string all;
  for (const std::string_view each : names) all += (all.empty() ? "" : ", ") + std::string(each);
  return "'" + std::string(found) + "' is none of " + all + core::suggestion(found, {names.begin(), names.end()});
}

PoolLimits read_limits(const core::Fields& fields, int least) {
  fields.only({"initial", "min", "max"});
  PoolLimits out;
  out.min = static_cast<int>(fields.integer_or("min", 1, least, kMaxWorkers));
  out.initial = static_cast<int>(fields.integer_or("initial", out.min, out.min, kMaxWorkers));
  out.max = static_cast<int>(fields.integer_or("max", out.initial, out.initial, kMaxWorkers));
  return out;
}

HpaPolicy read_hpa(const core::Fields& fields) {
  fields.only({"target", "tolerance", "interval_s", "stabilization_s"});
  HpaPolicy out;
  out.target = fields.number_or("target", out.target, 1e-6, 1e6);
  out.tolerance = fields.number_or("tolerance", out.tolerance, 0, 10);
  out.interval_s = fields.number_or("interval_s", out.interval_s, 0.1, kDay);
  out.stabilization_s = fields.number_or("stabilization_s", out.stabilization_s, 0, kDay);
  return out;
}

PlannerPolicy read_planner(const core::Fields& fields) {
  fields.only(
      {"adjustment_interval_s", "load_interval_s", "forecast", "utilization", "scale_up_ratio", "scale_down_ratio"});
  PlannerPolicy out;
  out.adjustment_interval_s = fields.number_or("adjustment_interval_s", out.adjustment_interval_s, 0.1, kDay);
  out.load_interval_s =
      fields.number_or("load_interval_s", std::min(out.load_interval_s, out.adjustment_interval_s), 0.1, kDay);
  if (out.load_interval_s > out.adjustment_interval_s)
    throw fields.error("load_interval_s", "must not be longer than adjustment_interval_s");
  const std::string forecast = fields.text_or("forecast", name(out.forecast));
  const auto kind = parse_forecast_kind(forecast);
  if (!kind) throw fields.error("forecast", one_of({"constant", "arima", "kalman"}, forecast));
  out.forecast = *kind;
  out.utilization = fields.number_or("utilization", out.utilization, 0.01, 1);
  out.scale_up_ratio = fields.number_or("scale_up_ratio", out.scale_up_ratio, 0, 1e6);
  out.scale_down_ratio =
      fields.number_or("scale_down_ratio", std::min(out.scale_down_ratio, out.scale_up_ratio), 0, out.scale_up_ratio);
  return out;
}

}  // namespace

std::string_view name(ScalingKind kind) { return kScalingNames[static_cast<size_t>(kind)]; }

std::optional<ScalingKind> parse_scaling_kind(std::string_view text) {
  const auto found = std::find(std::begin(kScalingNames), std::end(kScalingNames), text);
  if (found == std::end(kScalingNames)) return std::nullopt;
  return static_cast<ScalingKind>(found - std::begin(kScalingNames));
}

ScalingPolicy scaling_policy(const core::Json& json, const std::string& origin) {
  const core::Fields fields(json, origin);
  const std::string kind = fields.text("policy");
  const auto known = parse_scaling_kind(kind);
  if (!known) throw fields.error("policy", one_of({"fixed", "hpa", "planner"}, kind));
  ScalingPolicy out;
  out.kind = *known;
  // Settings of another policy would silently do nothing.
  fields.only({"policy", "prefill", "decode", out.kind == ScalingKind::fixed ? "policy" : name(out.kind)});
  const int least = out.kind == ScalingKind::planner ? 0 : 1;
  out.disaggregated = fields.has("prefill");
  if (out.disaggregated) out.prefill = read_limits(fields.object("prefill"), least);
  out.decode = read_limits(fields.object("decode"), least);
  if (fields.has("hpa")) out.hpa = read_hpa(fields.object("hpa"));
  if (fields.has("planner")) out.planner = read_planner(fields.object("planner"));
  return out;
}

ScalingPolicy read_scaling_policy(const std::filesystem::path& file) {
  return scaling_policy(core::read_json(file), file.string());
}

int hpa_desired(int current, int ready, double metric, double target, double tolerance) {
  if (ready <= 0) return current;
  double ratio = metric / target;
  const bool some_idle = ratio > 1 && ready < current;
  if (some_idle) ratio = ratio * ready / current;
  if (std::abs(ratio - 1) <= tolerance || (some_idle && ratio < 1)) return current;
  const double wanted = std::ceil(ratio * (some_idle ? current : ready));
  if (ratio < 1) return static_cast<int>(std::min<double>(wanted, current));
  return static_cast<int>(std::min<double>(wanted, INT_MAX));
}

int workers_needed(double requests_per_s, double queued_requests, double drain_s, double engine_requests_per_s,
                   double utilization) {
  const double load = requests_per_s + queued_requests / drain_s;
  if (!(load > 0)) return 0;
  const double capacity = engine_requests_per_s * utilization;
  // Rounding must not cost a worker.
  const double wanted = std::ceil(load / capacity * (1 - 1e-12));
  return capacity > 0 && wanted < INT_MAX ? static_cast<int>(wanted) : INT_MAX;
}

std::vector<size_t> workers_to_drain(std::span<const DrainCandidate> workers, int surplus) {
  std::vector<size_t> order(workers.size());
  std::iota(order.rbegin(), order.rend(), size_t{0});  // the last first, and the sort keeps it so
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (workers[a].ready != workers[b].ready) return workers[b].ready;
    return workers[a].ready && workers[a].outstanding_tokens < workers[b].outstanding_tokens;
  });
  order.resize(std::min(order.size(), static_cast<size_t>(std::max(0, surplus))));
  return order;
}

Autoscaler::Autoscaler(const ScalingPolicy& policy, EngineRates rates)
    : policy_(policy),
      rates_(std::move(rates)),
      prefill_{policy.prefill, policy.prefill.initial, policy.prefill.min},
      decode_{policy.decode, policy.decode.initial, policy.decode.min} {
  if (policy.kind != ScalingKind::planner) return;
  if (!rates_.decode_requests_per_s || (policy.disaggregated && !rates_.prefill_requests_per_s))
    throw core::Error("autoscaler: the planner needs the rate of an engine of each pool");
  // Mean lengths have no trend worth following: the last interval's stand for the next one's.
  requests_per_s_ = make_forecaster(policy.planner.forecast);
  for (auto* length : {&prompt_, &fresh_, &output_}) *length = make_forecaster(ForecastKind::constant);
}

Decision Autoscaler::decide(const Observation& now) {
  const bool planner = policy_.kind == ScalingKind::planner;
  if (!started_) {
    next_s_ = now.now_s;
    next_adjustment_s_ = now.now_s + policy_.planner.adjustment_interval_s;
    for (Pool* pool : {&prefill_, &decode_}) pool->recommendations.emplace_back(now.now_s, pool->desired);
    started_ = true;
  }
  if (planner) gather(now);
  const bool due = policy_.kind != ScalingKind::fixed && now.now_s >= next_s_;
  const bool adjusts = planner && now.now_s >= next_adjustment_s_;
  if (due) next_s_ = now.now_s + (planner ? policy_.planner.load_interval_s : policy_.hpa.interval_s);
  if (adjusts) adjust(now);
  const auto run = [&](Pool& pool, const PoolObservation& seen) {
    if (due && !planner) run_hpa(pool, seen, now.now_s);
    if (due && planner && !adjusts) follow_load(pool, seen);
    return std::min(pool.limits.max, pool.desired + (planner ? seen.stuck : 0));
  };
  return {policy_.disaggregated ? run(prefill_, now.prefill) : 0, run(decode_, now.decode)};
}

void Autoscaler::run_hpa(Pool& pool, const PoolObservation& seen, double now_s) {
  const auto& [target, tolerance, interval, stabilization_s] = policy_.hpa;
  const int current = pool.desired;
  const int wanted =
      std::clamp(hpa_desired(current, std::min(seen.ready, current), seen.queue_compute_ratio, target, tolerance),
                 pool.limits.min, pool.limits.max);
  auto& recent = pool.recommendations;
  recent.emplace_back(now_s, wanted);
  while (recent.front().first < now_s - stabilization_s) recent.pop_front();
  int highest = wanted;
  for (const auto& [time_s, workers] : recent) highest = std::max(highest, workers);
  const int64_t step = std::max(2 * int64_t{current}, int64_t{current} + 4);
  pool.desired = wanted > current ? static_cast<int>(std::min<int64_t>(wanted, step)) : std::min(current, highest);
}

void Autoscaler::gather(const Observation& now) {
  const double rate = std::max(0.0, now.requests_per_s);
  ++observations_;
  rate_sum_ += rate;
  if (!(rate > 0)) return;
  tokens_per_s_sum_.prompt_tokens += rate * now.prompt_tokens;
  tokens_per_s_sum_.fresh_tokens += rate * now.prompt_tokens * (1 - now.prefix_hit);
  tokens_per_s_sum_.output_tokens += rate * now.output_tokens;
}

void Autoscaler::adjust(const Observation& now) {
  const PlannerPolicy& planner = policy_.planner;
  next_adjustment_s_ = now.now_s + planner.adjustment_interval_s;
  requests_per_s_->observe(rate_sum_ / observations_);
  if (rate_sum_ > 0) {
    prompt_->observe(tokens_per_s_sum_.prompt_tokens / rate_sum_);
    fresh_->observe(tokens_per_s_sum_.fresh_tokens / rate_sum_);
    output_->observe(tokens_per_s_sum_.output_tokens / rate_sum_);
  }
  // A forecast lags behind a stop, so no traffic is believed at once.
  const bool idle = !(rate_sum_ > 0);
  const double rate = idle ? 0 : std::max(0.0, requests_per_s_->forecast());
  observations_ = rate_sum_ = 0;
  tokens_per_s_sum_ = {};
  const RequestShape shape = {prompt_->forecast(), fresh_->forecast(), output_->forecast()};
  const auto plan = [&](Pool& pool, const PoolObservation& seen, const auto& engine) {
    const bool empty = idle && !(seen.queued_requests > 0);
    const double capacity = empty ? 1 : engine(shape);
    apply_plan(pool, seen,
               workers_needed(rate, seen.queued_requests, planner.adjustment_interval_s, capacity, planner.utilization),
               empty);
  };
  if (policy_.disaggregated) plan(prefill_, now.prefill, rates_.prefill_requests_per_s);
  plan(decode_, now.decode, rates_.decode_requests_per_s);
}

// A pool that is overloaded now keeps what the load loop gave it, whatever the plan says.
void Autoscaler::apply_plan(Pool& pool, const PoolObservation& seen, int needed, bool idle) {
  pool.planned = std::clamp(needed, pool.limits.min, pool.limits.max);
  const bool busy = !idle && seen.queue_compute_ratio > policy_.planner.scale_up_ratio;
  pool.desired = busy ? std::max(pool.desired, pool.planned) : pool.planned;
}

void Autoscaler::follow_load(Pool& pool, const PoolObservation& seen) {
  // Without a ready worker there is no ratio; a queue then tells of the load.
  const bool waits = seen.ready == 0 && seen.queued_requests > 0;
  const bool busy = waits || seen.queue_compute_ratio > policy_.planner.scale_up_ratio;
  const bool coming = seen.starting > seen.stuck;
  if (busy && !coming)
    pool.desired = std::min(pool.limits.max, pool.desired + 1);
  else if (!busy && seen.queued_requests <= 0 && seen.queue_compute_ratio < policy_.planner.scale_down_ratio)
    pool.desired = std::max(std::min(pool.desired, pool.planned), pool.desired - 1);
}

}  // namespace drydock::scheduler
