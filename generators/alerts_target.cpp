#include "generators/alerts_target.h"

#include <array>

#include "core/error.h"
#include "generators/burn_rate.h"
#include "generators/kubernetes_parts.h"
#include "generators/text.h"

namespace drydock::generators {
namespace {

using core::Json;

constexpr std::array<Setting, 5> kAlertSettings = {{
    {"name", "name of the rules", "the model's"},
    {"namespace", "namespace of the rules", "that of kubectl"},
    {"metrics", "whose metrics: drydock, vllm, sglang, trtllm or dynamo", "those of the plan's backend"},
    {"served-name", "the model's name in the metrics", "the plan's"},
    {"rule-label", "label release= by which the Prometheus operator selects rules", "prometheus"},
}};

std::optional<double> objective_of(const models::Slo& slo) {
  return slo.percentile ? std::optional<double>(*slo.percentile / 100) : std::nullopt;
}

Json alert_rule(const std::string& name, const std::string& expression, const std::string& wait,
                const std::string& severity, const std::string& summary) {
  return {{"alert", name},
          {"expr", expression},
          {"for", wait},
          {"labels", {{"severity", severity}}},
          {"annotations", {{"summary", summary}}}};
}

Json burn_rule(const Request& request, const MetricNames& names, const LatencyTarget& target,
               const BurnWindow& window) {
  const std::optional<double> objective = objective_of(request.plan.slo);
  const std::string share = metric_number(100 * burning_share(objective.value_or(0), window.rate)) + " % of answers";
  Json rule =
      alert_rule("Drydock" + target.name + "Burn",
                 burn_expression(target, model_selector(request, names), std::string(names.model), objective, window),
                 window.wait, window.severity,
                 (objective ? "Over " + share : std::string("The mean")) + " over " + window.longer + " and " +
                     window.shorter + " beyond the plan's target of " + metric_number(target.seconds) + " s");
  rule["labels"]["window"] = window.longer;
  return rule;
}

// A mean needs no slow windows: it has no budget to be used up.
std::vector<BurnWindow> windows_of(const models::Slo& slo) {
  std::vector<BurnWindow> out = burn_windows();
  if (!slo.percentile) std::erase_if(out, [](const BurnWindow& w) { return std::string_view(w.severity) == "ticket"; });
  return out;
}

Json burn_group(const Request& request, const MetricNames& names) {
  Json rules = Json::array();
  for (const LatencyTarget& target : latency_targets(request.plan.slo, names))
    for (const BurnWindow& window : windows_of(request.plan.slo))
      rules.push_back(burn_rule(request, names, target, window));
  return {{"name", "drydock-slo-burn"}, {"interval", "30s"}, {"rules", std::move(rules)}};
}

// What the prediction took for granted.
Json assumption_group(const Request& request, const MetricNames& names) {
  const std::string of_model = model_selector(request, names);
  int64_t batch = 0;
  for (const models::Pool& pool : request.plan.pools)
    if (pool.role != models::Role::prefill) batch += pool.max_batch * pool.replicas;
  Json rules = Json::array();
  rules.push_back(alert_rule("DrydockNoMetrics", "absent(" + std::string(names.ttft) + "_count" + of_model + ")", "10m",
                             "page", "Nothing serves the plan's model, or its metrics are not scraped"));
  if (!names.waiting.empty())
    rules.push_back(
        alert_rule("DrydockQueueGrows", "sum(" + std::string(names.waiting) + of_model + ") > " + std::to_string(batch),
                   "10m", "ticket", "As many requests wait as the plan runs at once: more load than was planned for"));
  if (!names.kv_usage.empty())
    rules.push_back(alert_rule("DrydockKvCacheFull", "max(" + std::string(names.kv_usage) + of_model + ") > 0.97",
                               "15m", "ticket",
                               "A KV cache is full: longer sequences or more of them than were planned for"));
  if (names.key == "drydock") {
    rules.push_back(alert_rule("DrydockPreemptions", "sum(rate(drydock_preemptions_total" + of_model + "[15m])) > 0.1",
                               "15m", "ticket", "Sequences lose their KV cache and start again"));
    rules.push_back(alert_rule("DrydockWorkerRestarts",
                               "sum by (worker) (increase(drydock_worker_restarts_total" + of_model + "[30m])) > 2",
                               "1m", "page", "A worker keeps dying"));
  }
  return {{"name", "drydock-assumptions"}, {"rules", std::move(rules)}};
}

// Ten requests every two minutes, of which `good` are at half the target and the rest at one and a half.
Json histogram_series(const LatencyTarget& target, const std::string& labels, int good) {
  const auto series = [&](const std::string& suffix, const std::string& extra, double step) {
    return Json{{"series", target.metric + suffix + "{" + labels + extra + "}"},
                {"values", "0+" + metric_number(step) + "x2500"}};
  };
  const auto bucket = [&](double bound, double step) {
    return series("_bucket", ",le=\"" + metric_number(bound) + "\"", step);
  };
  const double sum = target.seconds * (0.5 * good + 1.5 * (10 - good));
  return Json::array({bucket(target.seconds / 2, good), bucket(target.seconds, good), bucket(target.seconds * 2, 10),
                      series("_bucket", ",le=\"+Inf\"", 10), series("_count", "", 10), series("_sum", "", sum)});
}

Json rule_test(const Request& request, const MetricNames& names, const LatencyTarget& target, bool burning) {
  const std::string selector = model_selector(request, names);
  Json expected = Json::array();
  if (burning)
    for (const BurnWindow& window : windows_of(request.plan.slo)) {
      const Json rule = burn_rule(request, names, target, window);
      Json labels = rule["labels"];
      labels[std::string(names.model)] = model_in_metrics(request, names);
      expected.push_back({{"exp_labels", labels}, {"exp_annotations", rule["annotations"]}});
    }
  return {{"interval", "2m"},
          {"input_series", histogram_series(target, selector.substr(1, selector.size() - 2), burning ? 0 : 10)},
          {"alert_rule_test", Json::array({Json{{"eval_time", "80h"},
                                                {"alertname", "Drydock" + target.name + "Burn"},
                                                {"exp_alerts", std::move(expected)}}})}};
}

std::vector<OutputFile> alert_files(const Request& request) {
  const MetricNames& names = metrics_of(request);
  Json groups = Json::array();
  if (!latency_targets(request.plan.slo, names).empty()) groups.push_back(burn_group(request, names));
  groups.push_back(assumption_group(request, names));
  Json metadata = kube_metadata(request, kube_name(request) + "-slo", "monitoring");
  metadata["labels"]["release"] = safe_name(request.set("rule-label", "prometheus"));
  const std::string head = header(request, "# ");
  std::vector<OutputFile> out = {
      {"alerts/prometheus-rule.yaml",
       head + yaml(kube_object("monitoring.coreos.com/v1", "PrometheusRule", metadata, {{"groups", groups}})),
       "the rules for the Prometheus operator"},
      {"alerts/rules.yaml", head + yaml(Json{{"groups", groups}}), "the same rules for Prometheus' rule_files"}};
  Json tests = Json::array();
  for (const LatencyTarget& target : latency_targets(request.plan.slo, names))
    for (const bool burning : {false, true}) tests.push_back(rule_test(request, names, target, burning));
  if (!tests.empty())
    out.push_back(
        {"alerts/rules_test.yaml",
         head +
             yaml(Json{{"rule_files", Json::array({"rules.yaml"})}, {"evaluation_interval", "4h"}, {"tests", tests}}),
         "promtool test rules: when they fire and when not"});
  return out;
}

}  // namespace

const Target kAlerts = {"alerts", "Prometheus rules: burn rate of the plan's targets", kAlertSettings, alert_files};

}  // namespace drydock::generators
