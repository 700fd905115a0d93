#include "generators/dynamo_target.h"

#include <array>

#include "core/error.h"
#include "generators/dynamo_planner.h"
#include "generators/engine_figures.h"
#include "generators/engine_launch.h"
#include "generators/kubernetes_parts.h"
#include "generators/text.h"

namespace drydock::generators {
namespace {

using core::Json;

constexpr std::string_view kDynamoVersion = "1.3.1";
constexpr char kModelFolder[] = "/models";
constexpr char kEngineFolder[] = "/etc/engine";

constexpr std::array<Setting, 17> kDynamoSettings = {{
    {"name", "name of all objects", "the model's"},
    {"namespace", "namespace of all objects", "that of kubectl"},
    {"api-version", "v1beta1, or v1alpha1 for operators before 1.2", "v1beta1"},
    {"dynamo-version", "tag of Dynamo's images", kDynamoVersion},
    {"image", "image of frontend and workers", "nvcr.io/nvidia/ai-dynamo/BACKEND-runtime"},
    {"planner-image", "image of the planner", "nvcr.io/nvidia/ai-dynamo/dynamo-planner"},
    {"planner", "on or off", "on with targets of TTFT and TPOT"},
    {"max-gpus", "that the planner may use", "the plan's"},
    {"model-path", "name on the hub, or folder within the volume at /models", "the plan's model"},
    {"model-claim", "claim of a volume with the model, mounted at /models", "none"},
    {"hf-secret", "secret with HF_TOKEN", "hf-token-secret"},
    {"gpu-product", "label nvidia.com/gpu.product of the nodes", "the system's"},
    {"cpus-per-gpu", "CPUs requested beside each GPU", "8"},
    {"memory-per-gpu", "host memory beside each GPU", "64Gi"},
    {"engine-version", "of the backend, for the flags' names", "the newest known"},
    {"served-name", "the model's name in requests", "the plan's model"},
    {"draft-model", "of speculative decoding by a draft model", ""},
}};

// One component of the graph, whichever version of the API says it.
struct GraphComponent {
  std::string name, type;  // type: frontend, planner, worker, prefill, decode
  int replicas = 1, nodes = 1, gpus = 0;
  std::string image = {}, module = {};
  Json args = Json::array(), resources = nullptr, affinity = nullptr, volumes = Json::array(), mounts = Json::array();
};

std::string dynamo_image(const Request& request, const std::string& kind, const std::string& setting) {
  return request.set(setting, "nvcr.io/nvidia/ai-dynamo/" + kind + ":" + request.set("dynamo-version", kDynamoVersion));
}

std::string runtime_image_of(const Request& request) {
  const models::Backend backend = request.plan.backend;
  const std::string kind = backend == models::Backend::trtllm ? "tensorrtllm" : std::string(models::name(backend));
  return dynamo_image(request, kind + "-runtime", "image");
}

// Dynamo counts requests where the plan counts their tokens; of equal requests that is the same.
std::string_view router_mode(const Request& request) {
  const std::string& policy = request.plan.router_policy;
  if (policy == "round_robin") return "round-robin";
  if (policy == "power_of_two") return "power-of-two";
  if (policy == "kv_aware") return "kv";
  return "least-loaded";
}

GraphComponent frontend_component(const Request& request) {
  GraphComponent c{"Frontend", "frontend", 1, 1, 0, runtime_image_of(request), "dynamo.frontend"};
  c.args = {"--http-port", "8000", "--router-mode", router_mode(request)};
  return c;
}

void mount_config(GraphComponent& c, const std::string& volume, const std::string& map, const std::string& folder) {
  c.volumes.push_back({{"name", volume}, {"configMap", {{"name", map}}}});
  c.mounts.push_back({{"name", volume}, {"mountPath", folder}, {"readOnly", true}});
}

GraphComponent planner_component(const Request& request) {
  GraphComponent c{"Planner",       "planner", 1, 1, 0, dynamo_image(request, "dynamo-planner", "planner-image"),
                   "dynamo.planner"};
  c.args = {"--config", kube_text(planner_config(request).dump(-1, ' ', false, Json::error_handler_t::replace))};
  if (request.planner_profile) mount_config(c, "profile", planner_data_name(request), kPlannerDataFolder);
  return c;
}

std::string engine_map_name(const Request& request) { return kube_name(request) + "-engine"; }

// The planner knows an engine that does both phases as "decode".
std::string component_type(const Request& request, const models::Pool& pool) {
  if (pool.role == models::Role::worker && wants_planner(request)) return "decode";
  return std::string(models::name(pool.role));
}

GraphComponent worker_component(const Request& request, const models::Pool& pool) {
  const PodShape shape = pod_shape(request, pool);
  const std::string type = component_type(request, pool);
  const EngineLaunch launch = engine_launch(request, pool, Host::dynamo);
  const bool vllm = request.plan.backend == models::Backend::vllm;
  GraphComponent c{type,
                   type,
                   pool.replicas,
                   shape.nodes,
                   shape.gpus,
                   runtime_image_of(request),
                   "dynamo." + std::string(models::name(request.plan.backend))};
  c.args = kube_texts({vllm ? "--model" : "--model-path", launch.model, "--served-model-name", served_name(request)});
  for (const std::string& flag : launch.flags) c.args.push_back(kube_text(flag));
  if (!launch.config.is_null()) {
    c.args.push_back("--extra-engine-args");
    c.args.push_back(std::string(kEngineFolder) + "/" + std::string(models::name(pool.role)) + ".yaml");
    mount_config(c, "engine", engine_map_name(request), kEngineFolder);
  }
  c.resources = gpu_resources(request, shape.gpus);
  c.affinity = gpu_affinity(request, request.system(pool));
  const std::string claim = request.set("model-claim", "");
  if (!claim.empty()) {
    c.volumes.push_back({{"name", "model"}, {"persistentVolumeClaim", {{"claimName", kube_subdomain(claim)}}}});
    c.mounts.push_back({{"name", "model"}, {"mountPath", kModelFolder}});
  }
  return c;
}

Json main_container(const Request& request, const GraphComponent& c) {
  Json out = {{"image", c.image}, {"command", Json::array({"python3", "-m", c.module})}, {"args", c.args}};
  const std::string secret = kube_subdomain(request.set("hf-secret", "hf-token-secret"));
  out["envFrom"] = Json::array({Json{{"secretRef", {{"name", secret}, {"optional", true}}}}});
  if (!c.mounts.empty()) out["volumeMounts"] = c.mounts;
  return out;
}

Json pod_extras(const GraphComponent& c) {
  Json out = Json::object();
  if (!c.affinity.is_null()) out["affinity"] = c.affinity, out["tolerations"] = gpu_tolerations();
  if (c.gpus > 0) out["terminationGracePeriodSeconds"] = 600;  // for streams to end
  if (!c.volumes.empty()) out["volumes"] = c.volumes;
  return out;
}

Json component_v1beta1(const Request& request, const GraphComponent& c) {
  Json container = {{"name", "main"}};
  container.update(main_container(request, c));
  if (!c.resources.is_null()) container["resources"] = c.resources;
  Json spec = pod_extras(c);
  spec["containers"] = Json::array({container});
  Json out = {{"name", c.name}, {"type", c.type}, {"replicas", c.replicas}};
  if (c.nodes > 1) out["multinode"] = {{"nodeCount", c.nodes}};
  if (c.gpus > 0) out["sharedMemorySize"] = "16Gi";
  out["podTemplate"] = {{"spec", spec}};
  return out;
}

// v1alpha1 has GPUs under a key of their own.
Json resources_v1alpha1(const Json& resources) {
  Json out;
  for (const auto& [kind, values] : resources.items())
    for (const auto& [key, value] : values.items()) out[kind][key == "nvidia.com/gpu" ? "gpu" : key] = value;
  return out;
}

Json component_v1alpha1(const Request& request, const GraphComponent& c) {
  const bool engine = c.gpus > 0;
  Json out = {{"componentType", engine ? "worker" : c.type}};
  if (engine && c.type != "worker") out["subComponentType"] = c.type;
  out["replicas"] = c.replicas;
  if (c.nodes > 1) out["multinode"] = {{"nodeCount", c.nodes}};
  if (!c.resources.is_null()) out["resources"] = resources_v1alpha1(c.resources);
  if (engine) out["sharedMemory"] = {{"size", "16Gi"}};
  Json spec = pod_extras(c);
  spec["mainContainer"] = main_container(request, c);
  out["extraPodSpec"] = spec;
  return out;
}

Json graph_object(const Request& request, const std::vector<GraphComponent>& components) {
  const std::string version = choice_setting(request, "api-version", "v1beta1", {"v1beta1", "v1alpha1"});
  Json spec = {{"backendFramework", models::name(request.plan.backend)}};
  if (version == "v1beta1") {
    spec["components"] = Json::array();
    for (const GraphComponent& c : components) spec["components"].push_back(component_v1beta1(request, c));
  } else {
    for (const GraphComponent& c : components) spec["services"][c.name] = component_v1alpha1(request, c);
  }
  return kube_object("nvidia.com/" + version, "DynamoGraphDeployment",
                     kube_metadata(request, kube_name(request), "graph"), spec);
}

// TensorRT-LLM's options, a file for each role.
Json engine_map(const Request& request) {
  Json data = Json::object();
  for (const models::Pool& pool : request.plan.pools) {
    const EngineLaunch launch = engine_launch(request, pool, Host::dynamo);
    if (!launch.config.is_null()) data[std::string(models::name(pool.role)) + ".yaml"] = yaml(launch.config);
  }
  if (data.empty()) return nullptr;
  return {{"apiVersion", "v1"},
          {"kind", "ConfigMap"},
          {"metadata", kube_metadata(request, engine_map_name(request), "engine")},
          {"data", data}};
}

std::vector<OutputFile> dynamo_files(const Request& request) {
  if (request.plan.backend == models::Backend::drydock)
    throw core::Error("target dynamo: runs vllm, sglang and trtllm, not the plan's backend drydock; take target k8s");
  std::vector<GraphComponent> components = {frontend_component(request)};
  std::vector<Json> objects;
  std::vector<OutputFile> out;
  if (wants_planner(request)) {
    components.push_back(planner_component(request));
    if (request.planner_profile) {
      objects.push_back(planner_data(request));
      out = planner_data_files(request);
    }
  }
  for (const models::Pool& pool : request.plan.pools) components.push_back(worker_component(request, pool));
  if (Json map = engine_map(request); !map.is_null()) objects.push_back(std::move(map));
  objects.push_back(graph_object(request, components));
  out.insert(out.begin(), {"dynamo/deployment.yaml", header(request, "# ") + yaml(objects),
                           "the graph for Dynamo's operator: kubectl apply -f"});
  return out;
}

}  // namespace

const Target kDynamo = {"dynamo", "NVIDIA Dynamo's operator: graph, planner and its data", kDynamoSettings,
                        dynamo_files};

}  // namespace drydock::generators
