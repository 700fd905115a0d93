#pragma once
// Pieces that the Kubernetes targets share: names, labels, resources, where pods may run. Field names are those of the
// Kubernetes API, 1.30 and later.
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "generators/target.h"

namespace drydock::generators {

// `text` as Kubernetes takes it in args, commands and values of the environment, where "$(NAME)" would be expanded.
std::string kube_text(std::string_view text);
core::Json kube_texts(const std::vector<std::string>& texts);

// `text` as the name of an object: labels of RFC 1123 with dots between.
std::string kube_subdomain(std::string_view text);
// --set name, or the model's last path component; at most 40 characters, so that "-prefill-metrics" still fits.
std::string kube_name(const Request& request);
// {name, namespace where it is set, labels, annotations with the plan's hash}. `component`: "router", "decode", ...
core::Json kube_metadata(const Request& request, const std::string& name, std::string_view component);
// What selects the pods of a component; without one, all pods of the deployment.
core::Json kube_selector(const Request& request, std::string_view component = "");
// Labels of pods: the selector and what they are part of.
core::Json kube_labels(const Request& request, std::string_view component);
core::Json kube_object(std::string_view api_version, std::string_view kind, core::Json metadata, core::Json spec);

// Pods that one engine instance of the pool is spread over, and GPUs of each. Throws core::Error when the instance does
// not fill its nodes evenly, as all pods of a group are equal.
struct PodShape {
  int nodes = 1, gpus = 1;
};
PodShape pod_shape(const Request& request, const models::Pool& pool);

// The label nvidia.com/gpu.product that GPU feature discovery gives such GPUs; --set gpu-product overrides it.
std::string gpu_product(const Request& request, const models::System& system);
core::Json gpu_affinity(const Request& request, const models::System& system);
core::Json gpu_tolerations();
// Requests and limits: GPUs, and CPUs and memory for each of them by --set cpus-per-gpu and memory-per-gpu.
core::Json gpu_resources(const Request& request, int gpus);
core::Json topology_spread(const core::Json& selector);
core::Json http_probe(std::string_view path, std::string_view port, int period_s, int failures);
core::Json shared_memory_volume(std::string_view size);

// The setting as a Kubernetes quantity ("64Gi"), as a count, or one of `allowed`. Throw core::Error naming it.
std::string quantity_setting(const Request& request, const std::string& key, std::string_view otherwise);
int count_setting(const Request& request, const std::string& key, int otherwise, int least, int most);
std::string choice_setting(const Request& request, const std::string& key, std::string_view otherwise,
                           const std::vector<std::string>& allowed);

// A claim for the model's files: --set storage-class, storage-size.
core::Json model_claim(const Request& request, const std::string& name, std::string_view component);
// Room that the published checkpoint needs at most, with a quarter to spare: "80Gi".
std::string model_storage(const Request& request);

}  // namespace drydock::generators
