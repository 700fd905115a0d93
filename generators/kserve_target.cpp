#include "generators/kserve_target.h"

#include <array>

#include "core/error.h"
#include "generators/engine_figures.h"
#include "generators/engine_launch.h"
#include "generators/kubernetes_parts.h"
#include "generators/text.h"

namespace drydock::generators {
namespace {

using core::Json;

constexpr std::array<Setting, 13> kKserveSettings = {{
    {"name", "name of the service", "the model's"},
    {"namespace", "namespace of the service", "that of kubectl"},
    {"image", "image of the engine", "the backend's own"},
    {"model-path", "name on the hub, or folder in the container", "the plan's model"},
    {"model-uri", "where KServe fetches the model from", "hf://MODEL"},
    {"served-name", "the model's name in requests", "the plan's model"},
    {"hf-secret", "secret with HF_TOKEN", "hf-token-secret"},
    {"max-replicas", "by autoscaling", "twice the plan's"},
    {"gpu-product", "label nvidia.com/gpu.product of the nodes", "the system's"},
    {"cpus-per-gpu", "CPUs requested beside each GPU", "8"},
    {"memory-per-gpu", "host memory beside each GPU", "64Gi"},
    {"engine-version", "of the backend, for the flags' names", "the newest known"},
    {"draft-model", "of speculative decoding by a draft model", ""},
}};

constexpr int kEnginePort = 8080;  // where KServe's ingress looks for a custom container

std::string engine_image(const Request& request) {
  switch (request.plan.backend) {
    case models::Backend::vllm:
      return request.set("image", "vllm/vllm-openai:latest");
    case models::Backend::sglang:
      return request.set("image", "lmsysorg/sglang:latest");
    default:
      return request.set("image", "nvcr.io/nvidia/tensorrt-llm/release:latest");
  }
}

Json engine_command(const Request& request) {
  switch (request.plan.backend) {
    case models::Backend::vllm:
      return Json::array({"vllm", "serve"});
    case models::Backend::sglang:
      return Json::array({"python3", "-m", "sglang.launch_server", "--model-path"});
    default:
      return Json::array({"trtllm-serve"});
  }
}

std::string kserve_config_name(const Request& request) { return kube_name(request) + "-engine"; }

Json predictor_container(const Request& request, const models::Pool& pool, const EngineLaunch& launch) {
  std::vector<std::string> args = {launch.model};
  args.insert(args.end(), launch.flags.begin(), launch.flags.end());
  if (request.plan.backend != models::Backend::trtllm)
    args.insert(args.end(), {"--served-model-name", served_name(request)});
  if (!launch.config.is_null()) args.insert(args.end(), {"--extra_llm_api_options", "/etc/engine/engine.yaml"});
  args.insert(args.end(), {"--host", "0.0.0.0", "--port", std::to_string(kEnginePort)});
  Json mounts = Json::array({Json{{"name", "shared-memory"}, {"mountPath", "/dev/shm"}}});
  if (!launch.config.is_null())
    mounts.push_back({{"name", "engine"}, {"mountPath", "/etc/engine"}, {"readOnly", true}});
  const std::string secret = kube_subdomain(request.set("hf-secret", "hf-token-secret"));
  return {
      {"name", "kserve-container"},
      {"image", engine_image(request)},
      {"command", engine_command(request)},
      {"args", kube_texts(args)},
      {"envFrom", Json::array({Json{{"secretRef", {{"name", secret}, {"optional", true}}}}})},
      {"ports", Json::array({Json{{"containerPort", kEnginePort}, {"protocol", "TCP"}}})},
      {"startupProbe",
       {{"httpGet", {{"path", "/health"}, {"port", kEnginePort}}}, {"periodSeconds", 10}, {"failureThreshold", 180}}},
      {"readinessProbe",
       {{"httpGet", {{"path", "/health"}, {"port", kEnginePort}}}, {"periodSeconds", 5}, {"failureThreshold", 2}}},
      {"resources", gpu_resources(request, pod_shape(request, pool).gpus)},
      {"volumeMounts", std::move(mounts)}};
}

int kserve_most(const Request& request, const models::Pool& pool) {
  return std::max(pool.replicas, count_setting(request, "max-replicas", 2 * pool.replicas, 1, 100000));
}

std::vector<Json> inference_service(const Request& request) {
  const models::Pool& pool = request.plan.pool(models::Role::worker);
  const EngineLaunch launch = engine_launch(request, pool, Host::own_server);
  Json volumes = Json::array({shared_memory_volume("16Gi")});
  std::vector<Json> out;
  if (!launch.config.is_null()) {
    volumes.push_back({{"name", "engine"}, {"configMap", {{"name", kserve_config_name(request)}}}});
    out.push_back({{"apiVersion", "v1"},
                   {"kind", "ConfigMap"},
                   {"metadata", kube_metadata(request, kserve_config_name(request), "engine")},
                   {"data", {{"engine.yaml", yaml(launch.config)}}}});
  }
  Json metadata = kube_metadata(request, kube_name(request), "worker");
  metadata["annotations"]["serving.kserve.io/deploymentMode"] = "RawDeployment";
  out.push_back(kube_object("serving.kserve.io/v1beta1", "InferenceService", metadata,
                            {{"predictor",
                              {{"minReplicas", pool.replicas},
                               {"maxReplicas", kserve_most(request, pool)},
                               {"affinity", gpu_affinity(request, request.system(pool))},
                               {"tolerations", gpu_tolerations()},
                               {"containers", Json::array({predictor_container(request, pool, launch)})},
                               {"volumes", std::move(volumes)}}}}));
  return out;
}

// KServe's own template starts vLLM through a shell's eval and adds these words.
std::string additional_args(const Request& request, const models::Pool& pool) {
  std::string out;
  for (const std::string& flag : engine_launch(request, pool, Host::own_server).flags)
    out += (out.empty() ? "" : " ") + shell_word(flag);
  return kube_text(out);
}

Json llm_pod(const Request& request, const models::Pool& pool) {
  Json container = {
      {"name", "main"},
      {"env", Json::array({Json{{"name", "VLLM_ADDITIONAL_ARGS"}, {"value", additional_args(request, pool)}}})},
      {"resources", gpu_resources(request, pod_shape(request, pool).gpus)}};
  if (const std::string image = request.set("image", ""); !image.empty()) container["image"] = image;
  return {{"affinity", gpu_affinity(request, request.system(pool))},
          {"tolerations", gpu_tolerations()},
          {"containers", Json::array({std::move(container)})}};
}

Json llm_workload(const Request& request, const models::Pool& pool) {
  const models::Parallelism& p = pool.parallelism;
  const PodShape shape = pod_shape(request, pool);
  Json parallelism = {{"tensor", p.tp}};
  if (p.pp > 1) parallelism["pipeline"] = p.pp;
  if (p.attention_dp > 1) {
    if (p.attention_dp % shape.nodes != 0)
      throw core::Error("target kserve: attention_dp " + std::to_string(p.attention_dp) + " does not divide over " +
                        std::to_string(shape.nodes) + " nodes");
    parallelism["data"] = p.attention_dp;
    parallelism["dataLocal"] = p.attention_dp / shape.nodes;
  }
  if (p.ep > 1) parallelism["expert"] = true;
  Json out = {{"replicas", pool.replicas}, {"parallelism", parallelism}, {"template", llm_pod(request, pool)}};
  if (shape.nodes > 1) out["worker"] = llm_pod(request, pool);
  return out;
}

Json llm_inference_service(const Request& request) {
  if (request.plan.backend != models::Backend::vllm)
    throw core::Error(
        "target kserve: prefill and decode apart, and instances over several nodes, need an "
        "LLMInferenceService, which runs vllm, not the plan's backend " +
        std::string(models::name(request.plan.backend)));
  const bool disagg = request.plan.mode == models::Mode::disagg;
  Json spec = {
      {"model", {{"uri", request.set("model-uri", "hf://" + model_path(request))}, {"name", served_name(request)}}}};
  spec.update(llm_workload(request, request.plan.pool(disagg ? models::Role::decode : models::Role::worker)));
  if (disagg) spec["prefill"] = llm_workload(request, request.plan.pool(models::Role::prefill));
  spec["router"] = {{"route", Json::object()}, {"gateway", Json::object()}, {"scheduler", Json::object()}};
  return kube_object("serving.kserve.io/v1alpha1", "LLMInferenceService",
                     kube_metadata(request, kube_name(request), "graph"), spec);
}

std::vector<OutputFile> kserve_files(const Request& request) {
  if (request.plan.backend == models::Backend::drydock)
    throw core::Error("target kserve: runs vllm, sglang and trtllm, not the plan's backend drydock; take target k8s");
  const std::string head = header(request, "# ");
  const bool simple =
      request.plan.mode == models::Mode::agg && pod_shape(request, request.plan.pool(models::Role::worker)).nodes == 1;
  if (simple)
    return {{"kserve/inference-service.yaml", head + yaml(inference_service(request)),
             "KServe's InferenceService: kubectl apply -f"}};
  return {{"kserve/llm-inference-service.yaml", head + yaml(llm_inference_service(request)),
           "KServe's LLMInferenceService: kubectl apply -f"}};
}

}  // namespace

const Target kKserve = {"kserve", "KServe's InferenceService or LLMInferenceService", kKserveSettings, kserve_files};

}  // namespace drydock::generators
