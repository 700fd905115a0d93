#include "generators/kubernetes_target.h"

#include <algorithm>
#include <array>

#include "generators/kubernetes_parts.h"
#include "generators/kubernetes_workload.h"
#include "generators/launch_scripts.h"
#include "generators/runtime_config.h"
#include "generators/text.h"

namespace drydock::generators {
namespace {

using core::Json;

constexpr std::array<Setting, 13> kKubernetesSettings = {{
    {"name", "name of all objects", "the model's"},
    {"namespace", "namespace of all objects", "that of kubectl"},
    {"image", "image with the drydock command", "drydock:latest"},
    {"engine", "cuda, cpu or emulated", "cuda"},
    {"model-path", "the model's folder, within the volume at /models", "/models"},
    {"model-claim", "claim of the volume with the model", "NAME-model"},
    {"storage-class", "of that claim", "the cluster's"},
    {"storage-size", "of that claim", "1.25 x the bf16 weights"},
    {"secret", "secret whose key worker-secret workers share", "NAME-workers"},
    {"gpu-product", "label nvidia.com/gpu.product of the nodes", "the system's"},
    {"max-replicas", "of a pool, by autoscaling", "twice the plan's"},
    {"cpus-per-gpu", "CPUs requested beside each GPU", "8"},
    {"memory-per-gpu", "host memory beside each GPU", "64Gi"},
}};

EngineKind pod_engine(const Request& request) {
  const std::string engine = choice_setting(request, "engine", "cuda", {"cuda", "cpu", "emulated"});
  return engine == "cuda" ? EngineKind::cuda : engine == "cpu" ? EngineKind::cpu : EngineKind::emulated;
}

// Workers that autoscaling may add are in the configuration from the start; those that never join cost nothing.
Json runtime_config_map(const Request& request) {
  models::Plan plan = request.plan;
  for (models::Pool& pool : plan.pools) pool.replicas = most_replicas(request, pool);
  return {{"apiVersion", "v1"},
          {"kind", "ConfigMap"},
          {"metadata", kube_metadata(request, runtime_config_name(request), "config")},
          {"data", {{"runtime.json", runtime_config(plan, pod_engine(request))}}}};
}

// The router counts for its workers, by role; AverageValue shares the sum among them.
Json role_metric(const Request& request, const std::string& role, std::string_view name, std::string_view average) {
  return {{"type", "Object"},
          {"object",
           {{"describedObject", {{"apiVersion", "v1"}, {"kind", "Service"}, {"name", runtime_router_name(request)}}},
            {"metric", {{"name", name}, {"selector", {{"matchLabels", {{"role", role}}}}}}},
            {"target", {{"type", "AverageValue"}, {"averageValue", average}}}}}};
}

// More workers where a tenth of a batch waits, or, while decoding, the KV cache is nine tenths full.
Json autoscaler(const Request& request, const models::Pool& pool) {
  const std::string role(models::name(pool.role));
  const std::string name = runtime_pool_name(request, pool.role);
  const bool multinode = pod_shape(request, pool).nodes > 1;
  Json metrics = Json::array({role_metric(request, role, "drydock_requests_waiting",
                                          std::to_string(std::max<int64_t>(1, pool.max_batch / 10)))});
  if (pool.role != models::Role::prefill)
    metrics.push_back(role_metric(request, role, "drydock_kv_cache_usage_ratio", "900m"));
  const auto one_pod = [](int period) { return Json{{"type", "Pods"}, {"value", 1}, {"periodSeconds", period}}; };
  return kube_object(
      "autoscaling/v2", "HorizontalPodAutoscaler", kube_metadata(request, name, role),
      {{"scaleTargetRef",
        {{"apiVersion", multinode ? "leaderworkerset.x-k8s.io/v1" : "apps/v1"},
         {"kind", multinode ? "LeaderWorkerSet" : "StatefulSet"},
         {"name", name}}},
       {"minReplicas", pool.replicas},
       {"maxReplicas", most_replicas(request, pool)},
       {"metrics", metrics},
       {"behavior",
        {{"scaleUp", {{"stabilizationWindowSeconds", 30}, {"policies", Json::array({one_pod(60)})}}},
         {"scaleDown", {{"stabilizationWindowSeconds", 600}, {"policies", Json::array({one_pod(300)})}}}}}});
}

// Of several workers one may be taken away at a time; the only one not at all.
Json disruption_budget(const Request& request, const models::Pool& pool) {
  const std::string role(models::name(pool.role));
  const PodShape shape = pod_shape(request, pool);
  return kube_object("policy/v1", "PodDisruptionBudget",
                     kube_metadata(request, runtime_pool_name(request, pool.role), role),
                     {{"minAvailable", std::max(1, pool.replicas - 1) * shape.nodes},
                      {"selector", {{"matchLabels", kube_selector(request, role)}}}});
}

// Series of a PodMonitor name no Service of themselves, and adapters find those of the autoscaler's Service by that
// label; of all pods the router's alone have a port "http".
Json pod_monitor(const Request& request) {
  const Json service = {{"targetLabel", "service"}, {"replacement", runtime_router_name(request)}};
  return kube_object(
      "monitoring.coreos.com/v1", "PodMonitor", kube_metadata(request, kube_name(request), "monitoring"),
      {{"selector", {{"matchLabels", kube_selector(request)}}},
       {"podMetricsEndpoints",
        Json::array({Json{
            {"port", "http"}, {"path", "/metrics"}, {"interval", "15s"}, {"relabelings", Json::array({service})}}})}});
}

// Workers hear the router and one another; the router hears everyone who asks.
Json network_policy(const Request& request, const std::string& component, Json ingress) {
  return kube_object("networking.k8s.io/v1", "NetworkPolicy",
                     kube_metadata(request, kube_name(request) + "-" + component, component),
                     {{"podSelector", {{"matchLabels", kube_selector(request, component)}}},
                      {"policyTypes", Json::array({"Ingress"})},
                      {"ingress", std::move(ingress)}});
}

std::vector<Json> network_policies(const Request& request) {
  const Json own = {{"podSelector", {{"matchLabels", kube_selector(request)}}}};
  const Json from_own = {{"from", Json::array({own})}};
  const Json http = Json::array({Json{{"protocol", "TCP"}, {"port", kRouterPort}}});
  std::vector<Json> out = {network_policy(request, "router", Json::array({from_own, Json{{"ports", http}}}))};
  for (const models::Pool& pool : request.plan.pools)
    out.push_back(network_policy(request, std::string(models::name(pool.role)), Json::array({from_own})));
  return out;
}

std::vector<OutputFile> kubernetes_files(const Request& request) {
  const std::string head = header(request, "# ");
  std::vector<OutputFile> out;
  const auto file = [&](const std::string& name, const std::vector<Json>& objects, const std::string& what) {
    out.push_back({"k8s/" + name + ".yaml", head + yaml(objects), what});
  };
  file("10-config", {runtime_config_map(request)}, "the runtime's configuration");
  if (request.set("model-claim", "").empty())
    file("11-storage", {model_claim(request, runtime_claim_name(request), "storage")}, "the volume for the model");
  file("20-router", runtime_router(request), "the router and the service that users reach");
  std::vector<Json> scalers, budgets;
  for (const models::Pool& pool : request.plan.pools) {
    const std::string role(models::name(pool.role));
    file("30-" + role, runtime_workers(request, pool), "the pool of role " + role);
    scalers.push_back(autoscaler(request, pool));
    budgets.push_back(disruption_budget(request, pool));
  }
  file("40-autoscaling", scalers, "autoscaling on the runtime's metrics; needs an adapter that serves them");
  file("41-disruption", budgets, "how many workers maintenance may take away");
  file("50-monitoring", {pod_monitor(request)}, "scraping of metrics by the Prometheus operator");
  file("60-network", network_policies(request), "who may talk to whom");
  return out;
}

}  // namespace

const Target kKubernetes = {"k8s", "the bundled runtime on plain Kubernetes", kKubernetesSettings, kubernetes_files};

}  // namespace drydock::generators
