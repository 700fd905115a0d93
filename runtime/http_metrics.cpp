#include "runtime/http_metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <functional>

namespace drydock::runtime {
namespace {

// Seconds. From a token a millisecond (small models, GPUs) to answers of ten minutes.
constexpr double kFirstToken[] = {0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25,
                                  0.5,   0.75,   1,     2.5,  5,    7.5,  10,   20,   40,  80,   160};
constexpr double kBetweenTokens[] = {0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03,
                                     0.04,   0.05,  0.075, 0.1,   0.15,  0.2,   0.3,  0.5,   1,    2.5,   5};
constexpr double kDuration[] = {0.01, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5, 8, 12, 20, 30, 45, 60, 120, 240, 480, 960};
constexpr double kTokens[] = {1,    2,    5,    10,    20,    50,    100,    200,    500,    1000,
                              2000, 4000, 8000, 16000, 32000, 64000, 128000, 256000, 512000, 1000000};

using Labels = std::vector<prometheus::ClientMetric::Label>;
using Families = std::vector<prometheus::MetricFamily>;

prometheus::MetricFamily& add_family(Families& out, const char* name, const char* help, prometheus::MetricType type) {
  return out.emplace_back(prometheus::MetricFamily{name, help, type, {}});
}

void add_value(prometheus::MetricFamily& family, Labels labels, double value) {
  prometheus::ClientMetric& metric = family.metric.emplace_back();
  metric.label = std::move(labels);
  if (family.type == prometheus::MetricType::Counter)
    metric.counter.value = value;
  else
    metric.gauge.value = value;
}

using Shards = std::span<const std::unique_ptr<MetricsShard>>;

void add_histogram(Families& out, const char* name, const char* help, Shards shards, Histogram MetricsShard::*member,
                   const std::string& model) {
  prometheus::ClientMetric metric;
  metric.label = {{"model", model}};
  const std::span<const double> bounds = (*shards.front().*member).bounds();
  uint64_t below = 0;
  for (size_t bucket = 0; bucket <= bounds.size(); ++bucket) {
    for (const auto& shard : shards) below += (*shard.*member).count(bucket);
    const double bound = bucket < bounds.size() ? bounds[bucket] : std::numeric_limits<double>::infinity();
    metric.histogram.bucket.push_back({below, bound});
  }
  metric.histogram.sample_count = below;
  for (const auto& shard : shards) metric.histogram.sample_sum += (*shard.*member).sum();
  add_family(out, name, help, prometheus::MetricType::Histogram).metric.push_back(std::move(metric));
}

void add_requests(Families& out, Shards shards, const std::string& model) {
  prometheus::MetricFamily& family = add_family(
      out, "drydock_requests_total", "Requests to generate that have ended, by HTTP status (499: the client left)",
      prometheus::MetricType::Counter);
  for (const CompletionKind kind : {CompletionKind::text, CompletionKind::chat})
    for (size_t i = 0; i < MetricsShard::kStatuses.size(); ++i) {
      uint64_t count = 0;
      for (const auto& shard : shards) count += shard->requests(kind, i);
      const int status = MetricsShard::kStatuses[i];
      if (count == 0 && status != 200) continue;
      add_value(family,
                {{"endpoint", kind == CompletionKind::chat ? "chat_completions" : "completions"},
                 {"model", model},
                 {"status", status ? std::to_string(status) : "other"}},
                static_cast<double>(count));
    }
}

void add_per_worker(Families& out, const char* name, const char* help, prometheus::MetricType type,
                    const ServiceStats& stats, const std::string& model,
                    const std::function<double(const WorkerStats&)>& value) {
  prometheus::MetricFamily& family = add_family(out, name, help, type);
  for (const WorkerStats& worker : stats.workers)
    add_value(family, {{"model", model}, {"role", worker.role}, {"worker", worker.name}}, value(worker));
}

void add_workers(Families& out, const ServiceStats& stats, const std::string& model) {
  using Type = prometheus::MetricType;
  const auto add = [&](const char* name, const char* help, Type type,
                       const std::function<double(const WorkerStats&)>& value) {
    add_per_worker(out, name, help, type, stats, model, value);
  };
  const auto count = [](int64_t WorkerStats::*member) {
    return [member](const WorkerStats& worker) { return static_cast<double>(worker.*member); };
  };
  add("drydock_worker_up", "1 while the worker lives", Type::Gauge,
      [](const WorkerStats& worker) { return worker.alive ? 1.0 : 0.0; });
  add("drydock_requests_running", "Generations that are computed", Type::Gauge, count(&WorkerStats::running));
  add("drydock_requests_waiting", "Generations that wait; worker \"router\": for a worker", Type::Gauge,
      count(&WorkerStats::waiting));
  add_value(out.back(), {{"model", model}, {"role", "router"}, {"worker", "router"}},
            static_cast<double>(stats.queued));
  add("drydock_kv_cache_usage_ratio", "KV blocks held by sequences, of all", Type::Gauge,
      [](const WorkerStats& worker) {
        return worker.kv_blocks > 0 ? static_cast<double>(worker.kv_blocks_used) / static_cast<double>(worker.kv_blocks)
                                    : 0.0;
      });
  add("drydock_preemptions_total", "Sequences that lost their KV blocks to others", Type::Counter,
      count(&WorkerStats::preemptions));
  add("drydock_prefix_cache_hit_tokens_total", "Prompt tokens found in the prefix cache", Type::Counter,
      count(&WorkerStats::cached_prompt_tokens));
  add("drydock_prefix_cache_query_tokens_total", "Prompt tokens looked for in the prefix cache", Type::Counter,
      count(&WorkerStats::prompt_tokens));
  add("drydock_generated_tokens_total", "Tokens drawn", Type::Counter, count(&WorkerStats::generated_tokens));
  add("drydock_steps_total", "Batches computed", Type::Counter, count(&WorkerStats::steps));
  add("drydock_step_seconds_total", "Time in batches", Type::Counter,
      [](const WorkerStats& worker) { return worker.step_seconds; });
  add("drydock_spec_decode_num_drafts_total", "Sequences that were drafted for, step by step", Type::Counter,
      count(&WorkerStats::drafts));
  add("drydock_spec_decode_num_draft_tokens_total", "Tokens drafted", Type::Counter, count(&WorkerStats::draft_tokens));
  add("drydock_spec_decode_num_accepted_tokens_total", "Drafted tokens that were right", Type::Counter,
      count(&WorkerStats::accepted_tokens));
  add("drydock_worker_restarts_total", "Times the worker was started again", Type::Counter,
      count(&WorkerStats::restarts));
}

void add_totals(Families& out, const ServiceStats& stats, const HttpGauges& gauges, const std::string& model) {
  using Type = prometheus::MetricType;
  const auto add = [&](const char* name, const char* help, Type type, double value) {
    add_value(add_family(out, name, help, type), {{"model", model}}, value);
  };
  add("drydock_kv_transfers_total", "KV caches sent from a prefill to a decode worker", Type::Counter,
      static_cast<double>(stats.kv_transfers));
  add("drydock_kv_transfers_failed_total", "KV caches that did not arrive", Type::Counter,
      static_cast<double>(stats.kv_transfers_failed));
  add("drydock_kv_transferred_bytes_total", "Bytes of KV caches sent", Type::Counter,
      static_cast<double>(stats.kv_transferred_bytes));
  add("drydock_kv_transfer_seconds_total", "Time in which KV caches were sent", Type::Counter,
      stats.kv_transfer_seconds);
  add("drydock_requests_migrated_total", "Generations that went on with another worker", Type::Counter,
      static_cast<double>(stats.migrated));
  add("drydock_requests_refused_total", "Generations refused because too many waited", Type::Counter,
      static_cast<double>(stats.refused));
  add("drydock_http_connections", "Open connections", Type::Gauge, static_cast<double>(gauges.connections));
  add("drydock_http_answers", "Requests to generate whose answer is open", Type::Gauge,
      static_cast<double>(gauges.streams));
  add_value(add_family(out, "drydock_build_info", "1; the version is a label", Type::Gauge),
            {{"model", model}, {"version", gauges.version}}, 1);
}

}  // namespace

void Histogram::observe(double value, uint64_t times) {
  const auto bucket = static_cast<size_t>(std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin());
  counts_[bucket].store(count(bucket) + times, std::memory_order_relaxed);
  sum_.store(sum() + value * static_cast<double>(times), std::memory_order_relaxed);
}

static_assert(std::size(kFirstToken) <= Histogram::kMostBuckets &&
              std::size(kBetweenTokens) <= Histogram::kMostBuckets && std::size(kDuration) <= Histogram::kMostBuckets &&
              std::size(kTokens) <= Histogram::kMostBuckets);

MetricsShard::MetricsShard()
    : time_to_first_token_s(kFirstToken),
      inter_token_latency_s(kBetweenTokens),
      request_duration_s(kDuration),
      prompt_tokens(kTokens),
      generation_tokens(kTokens) {}

void MetricsShard::count_request(CompletionKind kind, int status) {
  size_t at = 0;
  while (at + 1 < kStatuses.size() && kStatuses[at] != status) ++at;
  auto& counter = requests_[static_cast<size_t>(kind)][at];
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

std::string metrics_text(Shards shards, const ServiceStats& stats, const HttpGauges& gauges, const std::string& model) {
  Families families;
  add_histogram(families, "drydock_time_to_first_token_seconds", "From a request's last byte to its first token",
                shards, &MetricsShard::time_to_first_token_s, model);
  add_histogram(families, "drydock_inter_token_latency_seconds", "Between two tokens of an answer", shards,
                &MetricsShard::inter_token_latency_s, model);
  add_histogram(families, "drydock_request_duration_seconds", "From a request's last byte to the end of its answer",
                shards, &MetricsShard::request_duration_s, model);
  add_histogram(families, "drydock_prompt_tokens", "Tokens of a request's prompts", shards,
                &MetricsShard::prompt_tokens, model);
  add_histogram(families, "drydock_generation_tokens", "Tokens of a request's answers", shards,
                &MetricsShard::generation_tokens, model);
  add_requests(families, shards, model);
  add_workers(families, stats, model);
  add_totals(families, stats, gauges, model);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace drydock::runtime
