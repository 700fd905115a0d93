#include "generators/burn_rate.h"

#include <algorithm>

namespace drydock::generators {
namespace {

std::string over_window(const LatencyTarget& target, const std::string& selector, const std::string& model_label,
                        std::optional<double> objective, double rate, const char* window) {
  const auto summed = [&](const char* suffix, const std::string& by) {
    return "sum by (" + by + ") (rate(" + target.metric + suffix + selector + "[" + window + "]))";
  };
  const std::string above = " > " + metric_number(target.seconds);
  if (!objective) return "(" + summed("_sum", model_label) + " / " + summed("_count", model_label) + ")" + above;
  return "histogram_quantile(" + metric_number(1 - burning_share(*objective, rate)) + ", " +
         summed("_bucket", "le, " + model_label) + ")" + above;
}

}  // namespace

std::vector<LatencyTarget> latency_targets(const models::Slo& slo, const MetricNames& names) {
  std::vector<LatencyTarget> out;
  const auto add = [&](const char* name, std::string_view metric, const std::optional<double>& ms) {
    if (ms && !metric.empty()) out.push_back({name, std::string(metric), *ms / 1000});
  };
  add("TTFT", names.ttft, slo.ttft_ms);
  add("TPOT", names.itl, slo.tpot_ms);
  add("RequestLatency", names.duration, slo.request_latency_ms);
  return out;
}

std::vector<BurnWindow> burn_windows() {
  return {{"1h", "5m", "page", "2m", 14.4},
          {"6h", "30m", "page", "15m", 6},
          {"1d", "2h", "ticket", "1h", 3},
          {"3d", "6h", "ticket", "3h", 1}};
}

double burning_share(double objective, double rate) {
  constexpr double kMost = 0.8;
  return std::min(kMost, rate * (1 - objective));
}

std::string burn_expression(const LatencyTarget& target, const std::string& selector, const std::string& model_label,
                            std::optional<double> objective, const BurnWindow& window) {
  const auto over = [&](const char* length) {
    return over_window(target, selector, model_label, objective, window.rate, length);
  };
  return "(" + over(window.longer) + ") and (" + over(window.shorter) + ")";
}

}  // namespace drydock::generators
