#include "generators/kubernetes_workload.h"

#include <algorithm>

#include "generators/kubernetes_parts.h"
#include "generators/launch_scripts.h"
#include "generators/text.h"

namespace drydock::generators {
namespace {

using core::Json;

constexpr int kDrainSeconds = 600;  // for streams to end before a pod is killed

std::string runtime_image(const Request& request) { return request.set("image", "drydock:latest"); }
std::string secret_name(const Request& request) {
  return kube_subdomain(request.set("secret", kube_name(request) + "-workers"));
}

// `role` and further words may name variables of the environment.
Json runtime_args(const Request& request, const std::string& role, const std::vector<std::string>& more) {
  Json args = Json::array({"serve", "/etc/drydock/runtime.json", "--role", role});
  for (const std::string& word : more) args.push_back(word);
  const std::string path = request.set("model-path", "/models");
  if (request.set("engine", "cuda") != "emulated") args.push_back("--model-path"), args.push_back(kube_text(path));
  return args;
}

Json secret_variable(const Request& request) {
  return {{"name", "DRYDOCK_SECRET"},
          {"valueFrom", {{"secretKeyRef", {{"name", secret_name(request)}, {"key", "worker-secret"}}}}}};
}

Json field_variable(std::string_view name, std::string_view path) {
  return {{"name", name}, {"valueFrom", {{"fieldRef", {{"fieldPath", path}}}}}};
}

Json locked_down() {
  return {{"allowPrivilegeEscalation", false},
          {"readOnlyRootFilesystem", true},
          {"capabilities", {{"drop", Json::array({"ALL"})}}}};
}

Json runtime_container(const Request& request, std::string_view name, Json args, Json resources) {
  return {{"name", name},
          {"image", runtime_image(request)},
          {"command", Json::array({"drydock"})},
          {"args", std::move(args)},
          {"env", Json::array({secret_variable(request)})},
          {"resources", std::move(resources)},
          {"securityContext", locked_down()},
          {"volumeMounts", Json::array({Json{{"name", "config"}, {"mountPath", "/etc/drydock"}, {"readOnly", true}},
                                        Json{{"name", "tmp"}, {"mountPath", "/tmp"}}})}};
}

Json runtime_pod(const Request& request, std::string_view component, Json container) {
  Json volumes = Json::array({Json{{"name", "config"}, {"configMap", {{"name", runtime_config_name(request)}}}},
                              Json{{"name", "tmp"}, {"emptyDir", Json::object()}}});
  return {{"metadata",
           {{"labels", kube_labels(request, component)},
            {"annotations", {{"drydock.plan/hash", plan_hash(request.plan)}}}}},  // a new plan rolls the pods
          {"spec",
           {{"automountServiceAccountToken", false},
            {"securityContext", {{"runAsNonRoot", true}, {"runAsUser", 1000}, {"fsGroup", 1000}}},
            {"terminationGracePeriodSeconds", kDrainSeconds},
            {"topologySpreadConstraints", topology_spread(kube_selector(request, component))},
            {"containers", Json::array({std::move(container)})},
            {"volumes", std::move(volumes)}}}};
}

Json service_port(std::string_view name, int port) { return {{"name", name}, {"port", port}, {"targetPort", name}}; }

bool on_gpus(const Request& request) { return request.set("engine", "cuda") == "cuda"; }

// The other engines take the CPUs and the memory that would be beside the GPUs.
Json worker_resources(const Request& request, int gpus) {
  Json out = gpu_resources(request, gpus);
  if (!on_gpus(request))
    for (Json& kind : out) kind.erase("nvidia.com/gpu");
  return out;
}

Json worker_pod(const Request& request, const models::Pool& pool, const PodShape& shape, std::string_view index_label) {
  const std::string role(models::name(pool.role));
  const std::string router = runtime_router_name(request) + ":" + std::to_string(kJoinPort);
  // No probes: a worker has no HTTP side, and ends when its engine fails or the router is gone for good.
  Json container = runtime_container(request, role,
                                     runtime_args(request, "worker:" + role + "/$(DRYDOCK_WORKER_INDEX)",
                                                  {"--join", router, "--kv-host", "$(DRYDOCK_POD_IP)"}),
                                     worker_resources(request, shape.gpus));
  container["env"].push_back(
      field_variable("DRYDOCK_WORKER_INDEX", "metadata.labels['" + std::string(index_label) + "']"));
  container["env"].push_back(field_variable("DRYDOCK_POD_IP", "status.podIP"));
  container["volumeMounts"].push_back({{"name", "model"}, {"mountPath", "/models"}, {"readOnly", true}});
  container["volumeMounts"].push_back({{"name", "shared-memory"}, {"mountPath", "/dev/shm"}});
  Json pod = runtime_pod(request, role, std::move(container));
  if (on_gpus(request)) {
    pod["spec"]["affinity"] = gpu_affinity(request, request.system(pool));
    pod["spec"]["tolerations"] = gpu_tolerations();
  }
  pod["spec"]["volumes"].push_back(
      {{"name", "model"}, {"persistentVolumeClaim", {{"claimName", runtime_claim_name(request)}, {"readOnly", true}}}});
  pod["spec"]["volumes"].push_back(shared_memory_volume("16Gi"));
  return pod;
}

Json stateful_set(const Request& request, const models::Pool& pool, const PodShape& shape) {
  const std::string name = runtime_pool_name(request, pool.role);
  const std::string role(models::name(pool.role));
  return kube_object("apps/v1", "StatefulSet", kube_metadata(request, name, role),
                     {{"serviceName", name},
                      {"replicas", pool.replicas},
                      {"podManagementPolicy", "Parallel"},
                      {"selector", {{"matchLabels", kube_selector(request, role)}}},
                      {"template", worker_pod(request, pool, shape, "apps.kubernetes.io/pod-index")}});
}

Json leader_worker_set(const Request& request, const models::Pool& pool, const PodShape& shape) {
  const std::string role(models::name(pool.role));
  const Json pod = worker_pod(request, pool, shape, "leaderworkerset.sigs.k8s.io/group-index");
  return kube_object("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet",
                     kube_metadata(request, runtime_pool_name(request, pool.role), role),
                     {{"replicas", pool.replicas},
                      {"startupPolicy", "LeaderCreated"},
                      {"leaderWorkerTemplate",
                       {{"size", shape.nodes},
                        {"restartPolicy", "RecreateGroupOnPodRestart"},
                        {"leaderTemplate", pod},
                        {"workerTemplate", pod}}}});
}

}  // namespace

std::string runtime_router_name(const Request& request) { return kube_name(request) + "-router"; }
std::string runtime_config_name(const Request& request) { return kube_name(request) + "-runtime"; }

std::string runtime_pool_name(const Request& request, models::Role role) {
  return kube_name(request) + "-" + std::string(models::name(role));
}

std::string runtime_claim_name(const Request& request) {
  return kube_subdomain(request.set("model-claim", kube_name(request) + "-model"));
}

int most_replicas(const Request& request, const models::Pool& pool) {
  constexpr int kMost = 10000;
  return std::max(pool.replicas, count_setting(request, "max-replicas", std::min(2 * pool.replicas, kMost), 1, kMost));
}

std::vector<Json> runtime_router(const Request& request) {
  const std::string name = runtime_router_name(request);
  const Json resources = {{"requests", {{"cpu", "2"}, {"memory", "2Gi"}}}, {"limits", {{"memory", "2Gi"}}}};
  Json container = runtime_container(request, "router",
                                     runtime_args(request, "router",
                                                  {"--host", "0.0.0.0", "--port", std::to_string(kRouterPort),
                                                   "--worker-listen", "0.0.0.0:" + std::to_string(kJoinPort)}),
                                     resources);
  container["ports"] = Json::array({Json{{"name", "http"}, {"containerPort", kRouterPort}},
                                    Json{{"name", "workers"}, {"containerPort", kJoinPort}}});
  container["startupProbe"] = http_probe("/health/live", "http", 10, 60);
  container["livenessProbe"] = http_probe("/health/live", "http", 10, 3);
  container["readinessProbe"] = http_probe("/health/ready", "http", 5, 2);
  Json pod = runtime_pod(request, "router", std::move(container));
  // The router knows the tokenizer by the model's files.
  pod["spec"]["containers"][0]["volumeMounts"].push_back(
      {{"name", "model"}, {"mountPath", "/models"}, {"readOnly", true}});
  pod["spec"]["volumes"].push_back(
      {{"name", "model"}, {"persistentVolumeClaim", {{"claimName", runtime_claim_name(request)}, {"readOnly", true}}}});
  return {
      kube_object("apps/v1", "Deployment", kube_metadata(request, name, "router"),
                  {{"replicas", 1},
                   {"selector", {{"matchLabels", kube_selector(request, "router")}}},
                   {"template", std::move(pod)}}),
      kube_object("v1", "Service", kube_metadata(request, name, "router"),
                  {{"selector", kube_selector(request, "router")},
                   {"publishNotReadyAddresses", true},  // workers join before the router is ready
                   {"ports", Json::array({service_port("http", kRouterPort), service_port("workers", kJoinPort)})}})};
}

std::vector<Json> runtime_workers(const Request& request, const models::Pool& pool) {
  const PodShape shape = pod_shape(request, pool);
  if (shape.nodes > 1) return {leader_worker_set(request, pool, shape)};  // its controller makes the service
  const std::string role(models::name(pool.role));
  const std::string name = runtime_pool_name(request, pool.role);
  return {stateful_set(request, pool, shape),
          kube_object("v1", "Service", kube_metadata(request, name, role),
                      {{"clusterIP", "None"}, {"selector", kube_selector(request, role)}})};
}

}  // namespace drydock::generators
