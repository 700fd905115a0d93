#include "generators/llmd_target.h"

#include <array>

#include "core/error.h"
#include "generators/engine_figures.h"
#include "generators/engine_launch.h"
#include "generators/kubernetes_parts.h"
#include "generators/text.h"

namespace drydock::generators {
namespace {

using core::Json;

constexpr std::array<Setting, 11> kLlmdSettings = {{
    {"name", "fullnameOverride of the release", "the model's"},
    {"image", "image with vLLM", "ghcr.io/llm-d/llm-d-cuda:v0.4.0"},
    {"model-path", "name on the hub", "the plan's model"},
    {"model-uri", "where the chart takes the model from: hf://NAME or pvc://CLAIM/PATH", "hf://MODEL"},
    {"served-name", "the model's name in requests", "the plan's model"},
    {"hf-secret", "secret with HF_TOKEN", "hf-token-secret"},
    {"gpu-product", "label nvidia.com/gpu.product of the nodes", "the system's"},
    {"cpus-per-gpu", "CPUs requested beside each GPU", "8"},
    {"memory-per-gpu", "host memory beside each GPU", "64Gi"},
    {"engine-version", "of vLLM, for the flags' names", "the newest known"},
    {"draft-model", "of speculative decoding by a draft model", ""},
}};

// The chart renders some values as templates.
std::string template_text(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool opens = text.substr(i, 2) == "{{";
    out += opens ? "{{ \"{{\" }}" : std::string(1, text[i]);
    i += opens;
  }
  return out;
}

// The chart adds these from `parallelism` itself.
std::vector<std::string> chart_args(const EngineLaunch& launch) {
  std::vector<std::string> out;
  for (size_t i = 0; i < launch.flags.size(); ++i) {
    if (launch.flags[i] == "--tensor-parallel-size" || launch.flags[i] == "--data-parallel-size")
      ++i;
    else
      out.push_back(launch.flags[i]);
  }
  return out;
}

Json chart_pool(const Request& request, const models::Pool& pool, int port) {
  const models::Parallelism& p = pool.parallelism;
  const PodShape shape = pod_shape(request, pool);
  if (p.pp > 1 || p.attention_dp % shape.nodes != 0)
    throw core::Error("target llm-d: pool '" + std::string(models::name(pool.role)) +
                      "': its chart spreads an instance over nodes by attention DP alone; plan with pp 1 and an "
                      "attention_dp that the nodes divide");
  const Json container = {
      {"name", "vllm"},
      {"image", request.set("image", "ghcr.io/llm-d/llm-d-cuda:v0.4.0")},
      {"modelCommand", "vllmServe"},
      {"args", kube_texts(chart_args(engine_launch(request, pool, Host::own_server)))},
      {"ports", Json::array({Json{{"containerPort", port}, {"name", "metrics"}, {"protocol", "TCP"}}})},
      {"resources", gpu_resources(request, shape.gpus)},
      {"mountModelVolume", true}};
  return {{"create", true},
          {"replicas", pool.replicas},
          {"parallelism",
           {{"tensor", p.tp},
            {"data", p.attention_dp},
            {"dataLocal", p.attention_dp / shape.nodes},
            {"workers", shape.nodes}}},
          {"acceleratorTypes",
           {{"labelKey", "nvidia.com/gpu.product"},
            {"labelValues", Json::array({gpu_product(request, request.system(pool))})}}},
          {"containers", Json::array({container})},
          {"monitoring", {{"podmonitor", {{"enabled", true}, {"portName", "metrics"}, {"path", "/metrics"}}}}}};
}

Json chart_values(const Request& request) {
  constexpr int kServicePort = 8000, kBehindProxy = 8200;
  const bool disagg = request.plan.mode == models::Mode::disagg;
  const models::Pool& decode = request.plan.pool(disagg ? models::Role::decode : models::Role::worker);
  bool multinode = false;
  for (const models::Pool& pool : request.plan.pools) multinode = multinode || pod_shape(request, pool).nodes > 1;
  Json out = {{"fullnameOverride", kube_name(request)},
              {"modelArtifacts",
               {{"name", served_name(request)},
                {"uri", template_text(request.set("model-uri", "hf://" + model_path(request)))},
                {"size", model_storage(request)},
                {"authSecretName", kube_subdomain(request.set("hf-secret", "hf-token-secret"))},
                {"labels", {{"llm-d.ai/inferenceServing", "true"}, {"llm-d.ai/model", kube_name(request)}}}}},
              {"multinode", multinode},
              {"accelerator", {{"type", "nvidia"}}},
              {"routing",
               {{"servicePort", kServicePort},
                {"proxy", {{"enabled", disagg}, {"targetPort", kBehindProxy}, {"connector", "nixlv2"}}}}}};
  out["decode"] = chart_pool(request, decode, disagg ? kBehindProxy : kServicePort);
  if (disagg)
    out["prefill"] = chart_pool(request, request.plan.pool(models::Role::prefill), kServicePort);
  else
    out["prefill"] = {{"create", false}};
  return out;
}

std::vector<OutputFile> llmd_files(const Request& request) {
  if (request.plan.backend != models::Backend::vllm)
    throw core::Error("target llm-d: runs vllm, not the plan's backend " +
                      std::string(models::name(request.plan.backend)));
  return {{"llm-d/values.yaml", header(request, "# ") + yaml(chart_values(request)),
           "helm install NAME llm-d-modelservice/llm-d-modelservice -f values.yaml"}};
}

}  // namespace

const Target kLlmd = {"llm-d", "values of llm-d's chart modelservice", kLlmdSettings, llmd_files};

}  // namespace drydock::generators
