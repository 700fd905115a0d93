#include "generators/triton_target.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "generators/engine_launch.h"
#include "generators/kubernetes_parts.h"
#include "generators/text.h"
#include "generators/triton_templates.h"

namespace drydock::generators {
namespace {

using core::Json;

constexpr std::array<Setting, 14> kTritonSettings = {{
    {"name", "name of the chart", "the model's"},
    {"image", "image of Triton with TensorRT-LLM", "nvcr.io/nvidia/tritonserver:25.12-trtllm-python-py3"},
    {"model-path", "name on the hub, or folder in the image", "the plan's model"},
    {"hf-secret", "secret with HF_TOKEN", "hf-token-secret"},
    {"storage-class", "of the weights' volume", "the cluster's"},
    {"storage-size", "of the weights' volume", "1.25 x the bf16 weights"},
    {"model-claim", "claim of a volume to use instead", "none"},
    {"gpu-product", "label nvidia.com/gpu.product of the nodes", "the system's"},
    {"max-replicas", "by autoscaling", "4, or twice the plan's"},
    {"rule-label", "label release= by which the Prometheus operator selects", "prometheus"},
    {"cpus-per-gpu", "CPUs requested beside each GPU", "8"},
    {"memory-per-gpu", "host memory beside each GPU", "64Gi"},
    {"engine-version", "of TensorRT-LLM, for the options' names", "the newest known"},
    {"draft-model", "of speculative decoding by a draft model", ""},
}};

const models::Pool& triton_pool(const Request& request) {
  if (request.plan.backend != models::Backend::trtllm)
    throw core::Error("target triton: runs trtllm, not the plan's backend " +
                      std::string(models::name(request.plan.backend)));
  if (request.plan.mode == models::Mode::disagg)
    throw core::Error("target triton: serves both phases in one server; the plan has them apart: take target dynamo");
  const models::Pool& pool = request.plan.pool(models::Role::worker);
  if (pod_shape(request, pool).nodes > 1)
    throw core::Error("target triton: an instance of " + std::to_string(pool.parallelism.gpus()) +
                      " GPUs spans nodes, and the chart's Deployment keeps it on one: take target dynamo");
  return pool;
}

// The parallel sizes have keys of their own.
Json llm_options(const Request& request, const models::Pool& pool) {
  Json out = engine_launch(request, pool, Host::own_server).config;
  out.erase("tensor_parallel_size");
  out.erase("pipeline_parallel_size");
  return out;
}

Json triton_values(const Request& request) {
  const models::Pool& pool = triton_pool(request);
  const models::Parallelism& p = pool.parallelism;
  const EngineLaunch launch = engine_launch(request, pool, Host::own_server);
  const Json resources = gpu_resources(request, p.gpus());
  const int most =
      std::max(pool.replicas, count_setting(request, "max-replicas", std::max(4, 2 * pool.replicas), 1, 100000));
  const std::string storage_class = request.set("storage-class", ""), claim = request.set("model-claim", "");
  return {
      {"gpu", Json::array({gpu_product(request, request.system(pool))})},
      {"model",
       {{"name", launch.model},
        {"folder", safe_name(launch.model)},
        {"pullSecret", kube_subdomain(request.set("hf-secret", "hf-token-secret"))},
        {"tensorrtLlm",
         {{"parallelism", {{"tensor", p.tp * p.attention_dp}, {"pipeline", p.pp}}},
          {"options", llm_options(request, pool)}}}}},
      {"triton",
       {{"image",
         {{"name", request.set("image", "nvcr.io/nvidia/tritonserver:25.12-trtllm-python-py3")},
          {"pullSecrets", Json::array()}}},
        {"resources", {{"cpu", resources["requests"]["cpu"]}, {"memory", resources["requests"]["memory"]}}},
        {"decoupled", true},
        {"sharedMemory", "16Gi"},
        {"sourceRepository", "https://github.com/NVIDIA/TensorRT-LLM"}}},
      {"autoscaling",
       {{"enable", true},
        {"replicas", {{"minimum", pool.replicas}, {"maximum", most}}},
        {"metric", {{"name", "triton:queue_compute:ratio"}, {"value", "1000m"}}}}},
      {"monitoring", {{"enable", true}, {"labels", {{"release", safe_name(request.set("rule-label", "prometheus"))}}}}},
      {"storage",
       {{"className", storage_class.empty() ? "" : kube_subdomain(storage_class)},
        {"size", quantity_setting(request, "storage-size", model_storage(request))},
        {"accessMode", "ReadWriteMany"},
        {"existingClaim", claim.empty() ? "" : kube_subdomain(claim)}}},
      {"kubernetes", {{"tolerations", Json::array()}}}};
}

Json object_schema(const Json& properties) {
  Json required = Json::array();
  for (const auto& [key, value] : properties.items()) required.push_back(key);
  return {{"type", "object"}, {"additionalProperties", false}, {"required", required}, {"properties", properties}};
}

Json quantity_schema() { return {{"type", "string"}, {"pattern", "^[0-9]+(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"}}; }

// helm refuses values that do not follow it.
Json values_schema() {
  const Json text = {{"type", "string"}}, name = {{"type", "string"}, {"minLength", 1}};
  const Json count = {{"type", "integer"}, {"minimum", 1}}, flag = {{"type", "boolean"}};
  const Json list = {{"type", "array"}}, any = {{"type", "object"}};
  Json model = object_schema(
      {{"name", name},
       {"folder", {{"type", "string"}, {"pattern", "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"}}},
       {"pullSecret", text},
       {"tensorrtLlm",
        object_schema({{"parallelism", object_schema({{"tensor", count}, {"pipeline", count}})}, {"options", any}})}});
  Json triton =
      object_schema({{"image", object_schema({{"name", name}, {"pullSecrets", list}})},
                     {"resources", object_schema({{"cpu", quantity_schema()}, {"memory", quantity_schema()}})},
                     {"decoupled", flag},
                     {"sharedMemory", quantity_schema()},
                     {"sourceRepository", name}});
  Json out = object_schema(
      {{"gpu", {{"type", "array"}, {"minItems", 1}, {"items", name}}},
       {"model", std::move(model)},
       {"triton", std::move(triton)},
       {"autoscaling", object_schema({{"enable", flag},
                                      {"replicas", object_schema({{"minimum", count}, {"maximum", count}})},
                                      {"metric", object_schema({{"name", name}, {"value", quantity_schema()}})}})},
       {"monitoring", object_schema({{"enable", flag}, {"labels", any}})},
       {"storage",
        object_schema({{"className", text},
                       {"size", quantity_schema()},
                       {"accessMode", {{"enum", Json::array({"ReadWriteMany", "ReadWriteOnce", "ReadOnlyMany"})}}},
                       {"existingClaim", text}})},
       {"kubernetes", object_schema({{"tolerations", list}})}});
  out["properties"]["global"] = any;  // helm's own
  Json schema = {{"$schema", "http://json-schema.org/draft-07/schema#"}};
  schema.update(out);
  return schema;
}

std::vector<OutputFile> triton_files(const Request& request) {
  const std::string head = header(request, "# ");
  const Json chart = {{"apiVersion", "v2"},
                      {"name", kube_name(request)},
                      {"description", "Triton with TensorRT-LLM, as planned by drydock"},
                      {"type", "application"},
                      {"version", "0.1.0"},
                      {"annotations", {{"drydock.plan/hash", plan_hash(request.plan)}}}};
  std::vector<OutputFile> out = {{"triton/Chart.yaml", head + yaml(chart), "the chart: helm install NAME triton"},
                                 {"triton/values.yaml", head + yaml(triton_values(request)), "all that the plan says"},
                                 {"triton/values.schema.json", json_text(values_schema()), "what values may be"}};
  for (const ChartFile& file : triton_chart_files())
    out.push_back({"triton/" + std::string(file.path), std::string(file.text), std::string(file.what)});
  return out;
}

}  // namespace

const Target kTriton = {"triton", "Helm chart of Triton with TensorRT-LLM", kTritonSettings, triton_files};

}  // namespace drydock::generators
