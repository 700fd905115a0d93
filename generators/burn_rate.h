#pragma once
// Multi-window burn-rate alerts on latency histograms whose buckets are not known.
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "generators/metric_names.h"

namespace drydock::generators {

// One of the plan's targets, as a metric of the server.
struct LatencyTarget {
  std::string name;    // "TTFT"
  std::string metric;  // histogram
  double seconds = 0;
};
std::vector<LatencyTarget> latency_targets(const models::Slo& slo, const MetricNames& names);

struct BurnWindow {
  const char *longer, *shorter, *severity, *wait;
  double rate;  // how many times faster than allowed the budget burns
};
std::vector<BurnWindow> burn_windows();

// Share of requests beyond the target that burns a budget of 1 - objective so fast; at most 0.8, as no more than all
// requests can be bad.
double burning_share(double objective, double rate);

// True where that share is beyond the target: the quantile at its complement is. No bucket's bound needs to meet the
// target so, and between bounds histogram_quantile() interpolates. Without an objective (a target of the mean) the
// mean.
std::string burn_expression(const LatencyTarget& target, const std::string& selector, const std::string& model_label,
                            std::optional<double> objective, const BurnWindow& window);

}  // namespace drydock::generators
