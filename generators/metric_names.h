#pragma once
// What servers call their Prometheus metrics. Sources: the bundled runtime's own; vLLM's vllm/v1/metrics/loggers.py;
// SGLang's "Production Metrics"; TensorRT-LLM's metrics with the prefix that trtllm-serve and Dynamo give them;
// Dynamo's frontend ("Metrics").
#include <span>
#include <string>
#include <string_view>

#include "generators/target.h"

namespace drydock::generators {

struct MetricNames {
  std::string_view key, title;  // key: as --set metrics= takes it
  std::string_view model;       // label with the model's name
  // Histograms [s]; ITL is per token where the server has that, else per request.
  std::string_view ttft, itl, duration;
  std::string_view running, waiting, kv_usage;  // gauges; KV usage 0 to 1; empty: there is none
};

std::span<const MetricNames> metric_names();
// --set metrics, or those of the plan's backend. Throws core::Error naming the known ones.
const MetricNames& metrics_of(const Request& request);

// `text` as a string of PromQL, quotes included.
std::string promql_string(std::string_view text);
// The model's name as `names`' server labels its metrics: engines are told one, the runtime keeps the plan's spelling.
std::string model_in_metrics(const Request& request, const MetricNames& names);
// `{model="..."}` for what serves the plan's model.
std::string model_selector(const Request& request, const MetricNames& names);
// A number as PromQL and Grafana read it, at most 6 significant digits: "0.0144".
std::string metric_number(double value);

}  // namespace drydock::generators
