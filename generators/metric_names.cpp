#include "generators/metric_names.h"

#include <array>
#include <cstdio>

#include "core/error.h"
#include "generators/engine_figures.h"
#include "generators/kubernetes_parts.h"

namespace drydock::generators {
namespace {

constexpr std::array<MetricNames, 5> kMetricNames = {{
    {"drydock", "the bundled runtime", "model", "drydock_time_to_first_token_seconds",
     "drydock_inter_token_latency_seconds", "drydock_request_duration_seconds", "drydock_requests_running",
     "drydock_requests_waiting", "drydock_kv_cache_usage_ratio"},
    {"vllm", "vLLM", "model_name", "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds",
     "vllm:e2e_request_latency_seconds", "vllm:num_requests_running", "vllm:num_requests_waiting",
     "vllm:kv_cache_usage_perc"},
    {"sglang", "SGLang", "model_name", "sglang:time_to_first_token_seconds", "sglang:inter_token_latency_seconds",
     "sglang:e2e_request_latency_seconds", "sglang:num_running_reqs", "sglang:num_queue_reqs", "sglang:token_usage"},
    {"trtllm", "TensorRT-LLM", "model_name", "trtllm_time_to_first_token_seconds",
     "trtllm_time_per_output_token_seconds", "trtllm_e2e_request_latency_seconds", "", "",
     "trtllm_kv_cache_utilization"},
    {"dynamo", "Dynamo's frontend", "model", "dynamo_frontend_time_to_first_token_seconds",
     "dynamo_frontend_inter_token_latency_seconds", "dynamo_frontend_request_duration_seconds",
     "dynamo_frontend_inflight_requests", "dynamo_frontend_queued_requests", ""},
}};

}  // namespace

std::span<const MetricNames> metric_names() { return kMetricNames; }

const MetricNames& metrics_of(const Request& request) {
  std::vector<std::string> keys;
  for (const MetricNames& names : kMetricNames) keys.emplace_back(names.key);
  const std::string key = choice_setting(request, "metrics", models::name(request.plan.backend), keys);
  for (const MetricNames& names : kMetricNames)
    if (names.key == key) return names;
  return kMetricNames.front();  // not reached: every backend has a row
}

std::string promql_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    char escaped[8];
    if (c == '"' || c == '\\') {
      out += '\\', out += c;
    } else if (static_cast<unsigned char>(c) < 32 || c == 127) {
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned char>(c));
      out += escaped;
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string model_in_metrics(const Request& request, const MetricNames& names) {
  const bool runtime = names.key == models::name(models::Backend::drydock);
  return runtime ? request.set("served-name", request.plan.model) : served_name(request);
}

std::string model_selector(const Request& request, const MetricNames& names) {
  return "{" + std::string(names.model) + "=" + promql_string(model_in_metrics(request, names)) + "}";
}

std::string metric_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

}  // namespace drydock::generators
