#include "generators/kubernetes_parts.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

#include "core/error.h"
#include "core/text.h"
#include "generators/text.h"

namespace drydock::generators {
namespace {

using core::Json;

constexpr size_t kNameLength = 40;

// Product names as the driver reports them, blanks turned into '-': what the label holds on a node with such GPUs.
constexpr std::array<std::pair<std::string_view, std::string_view>, 14> kProducts = {{
    {"a100_pcie", "NVIDIA-A100-80GB-PCIe"},
    {"a100_sxm", "NVIDIA-A100-SXM4-80GB"},
    {"b200_sxm", "NVIDIA-B200"},
    {"b300_sxm", "NVIDIA-B300-SXM6-AC"},
    {"gb200", "NVIDIA-GB200"},
    {"gb300", "NVIDIA-GB300"},
    {"gh200", "NVIDIA-GH200-144G-HBM3e"},
    {"h100_pcie", "NVIDIA-H100-PCIe"},
    {"h100_sxm", "NVIDIA-H100-80GB-HBM3"},
    {"h20", "NVIDIA-H20"},
    {"h200_sxm", "NVIDIA-H200"},
    {"l4", "NVIDIA-L4"},
    {"l40s", "NVIDIA-L40S"},
    {"rtx_pro_6000_server", "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition"},
}};

// Label values: at most 63 of letters, digits, '-', '_' and '.', a letter or digit at both ends.
std::string label_value(std::string_view text) {
  constexpr size_t kMost = 63;
  const auto word = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); };
  const bool fine =
      !text.empty() && text.size() <= kMost && word(text.front()) && word(text.back()) &&
      std::all_of(text.begin(), text.end(), [&](char c) { return word(c) || c == '-' || c == '_' || c == '.'; });
  return fine ? std::string(text) : safe_name(text, kMost);
}

bool is_quantity(std::string_view text) {
  constexpr std::array<std::string_view, 13> kUnits = {"",   "m",  "k",  "M",  "G",  "T", "P",
                                                       "Ki", "Mi", "Gi", "Ti", "Pi", "E"};
  const size_t digits = text.find_first_not_of("0123456789");
  if (digits == 0 || text.empty()) return false;
  const std::string_view unit = digits == std::string_view::npos ? "" : text.substr(digits);
  return std::find(kUnits.begin(), kUnits.end(), unit) != kUnits.end();
}

}  // namespace

std::string kube_text(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == '$' ? std::string("$$") : std::string(1, c);
  return out;
}

Json kube_texts(const std::vector<std::string>& texts) {
  Json out = Json::array();
  for (const std::string& text : texts) out.push_back(kube_text(text));
  return out;
}

std::string kube_subdomain(std::string_view text) {
  constexpr size_t kMost = 253;
  std::string out;
  for (size_t from = 0; from <= text.size();) {
    const size_t to = std::min(text.find('.', from), text.size());
    out += (out.empty() ? "" : ".") + safe_name(text.substr(from, to - from));
    from = to + 1;
  }
  return out.size() <= kMost ? out : safe_name(text);
}

std::string kube_name(const Request& request) {
  const std::string& model = request.plan.model;
  const std::string last = model.substr(model.find_last_of('/') + 1);  // npos + 1: the whole
  const std::string name = safe_name(request.set("name", last), kNameLength);
  // Names of services begin with a letter (RFC 1035).
  return name.front() >= 'a' ? name : safe_name("m-" + name, kNameLength);
}

Json kube_selector(const Request& request, std::string_view component) {
  Json out = {{"app.kubernetes.io/instance", kube_name(request)}};
  if (!component.empty()) out["app.kubernetes.io/component"] = component;
  return out;
}

Json kube_labels(const Request& request, std::string_view component) {
  Json out = kube_selector(request, component);
  out["app.kubernetes.io/name"] = "drydock";
  out["app.kubernetes.io/managed-by"] = "drydock";
  out["drydock.plan/model"] = label_value(request.architecture.name);
  return out;
}

Json kube_metadata(const Request& request, const std::string& name, std::string_view component) {
  Json out = {{"name", name}};
  const std::string space = request.set("namespace", "");
  if (!space.empty()) out["namespace"] = safe_name(space);
  out["labels"] = kube_labels(request, component);
  out["annotations"] = {{"drydock.plan/hash", plan_hash(request.plan)},
                        {"drydock.plan/model", request.plan.model},
                        {"drydock.plan/precision", request.plan.precision}};
  return out;
}

Json kube_object(std::string_view api_version, std::string_view kind, Json metadata, Json spec) {
  return {{"apiVersion", api_version}, {"kind", kind}, {"metadata", std::move(metadata)}, {"spec", std::move(spec)}};
}

PodShape pod_shape(const Request& request, const models::Pool& pool) {
  const int gpus = pool.parallelism.gpus();
  const int per_node = std::max(1, request.system(pool).hardware.gpus_per_node);
  const int nodes = (gpus + per_node - 1) / per_node;
  if (gpus % nodes != 0)
    throw core::Error("pool '" + std::string(models::name(pool.role)) + "': an instance of " + std::to_string(gpus) +
                      " GPUs does not fill nodes of " + std::to_string(per_node) +
                      " evenly, as the pods of a group must");
  return {nodes, gpus / nodes};
}

std::string gpu_product(const Request& request, const models::System& system) {
  std::string product;
  for (const auto& [name, label] : kProducts)
    if (name == system.name()) product = label;
  if (product.empty()) {
    product = system.gpu;
    std::replace(product.begin(), product.end(), ' ', '-');
  }
  return label_value(request.set("gpu-product", product));
}

Json gpu_affinity(const Request& request, const models::System& system) {
  const Json expression = {
      {"key", "nvidia.com/gpu.product"}, {"operator", "In"}, {"values", Json::array({gpu_product(request, system)})}};
  const Json term = {{"matchExpressions", Json::array({expression})}};
  return {{"nodeAffinity",
           {{"requiredDuringSchedulingIgnoredDuringExecution", {{"nodeSelectorTerms", Json::array({term})}}}}}};
}

Json gpu_tolerations() {
  return Json::array({Json{{"key", "nvidia.com/gpu"}, {"operator", "Exists"}, {"effect", "NoSchedule"}}});
}

Json gpu_resources(const Request& request, int gpus) {
  const int cpus = count_setting(request, "cpus-per-gpu", 8, 1, 1024) * gpus;
  const std::string memory = quantity_setting(request, "memory-per-gpu", "64Gi");
  const size_t unit = memory.find_first_not_of("0123456789");
  constexpr int64_t kMostMemory = 1'000'000'000'000'000;
  const std::string count = memory.substr(0, unit);
  if (count.size() > 12 || std::strtoll(count.c_str(), nullptr, 10) * gpus > kMostMemory)
    throw core::Error("--set memory-per-gpu=" + memory + ": is too much; something like 64Gi");
  const std::string total = std::to_string(std::strtoll(count.c_str(), nullptr, 10) * gpus) +
                            (unit == std::string::npos ? "" : memory.substr(unit));
  const std::string number = std::to_string(gpus);
  return {{"requests", {{"cpu", std::to_string(cpus)}, {"memory", total}, {"nvidia.com/gpu", number}}},
          {"limits", {{"memory", total}, {"nvidia.com/gpu", number}}}};
}

Json topology_spread(const Json& selector) {
  return Json::array({Json{{"maxSkew", 1},
                           {"topologyKey", "kubernetes.io/hostname"},
                           {"whenUnsatisfiable", "ScheduleAnyway"},
                           {"labelSelector", {{"matchLabels", selector}}}}});
}

Json http_probe(std::string_view path, std::string_view port, int period_s, int failures) {
  return {{"httpGet", {{"path", path}, {"port", port}}},
          {"periodSeconds", period_s},
          {"timeoutSeconds", 5},
          {"failureThreshold", failures}};
}

Json shared_memory_volume(std::string_view size) {
  return {{"name", "shared-memory"}, {"emptyDir", {{"medium", "Memory"}, {"sizeLimit", size}}}};
}

std::string quantity_setting(const Request& request, const std::string& key, std::string_view otherwise) {
  const std::string text = request.set(key, otherwise);
  if (!is_quantity(text))
    throw core::Error("--set " + key + "=" + comment_text(text.substr(0, 40)) +
                      ": is not a quantity of Kubernetes; want something like " + std::string(otherwise));
  return text;
}

int count_setting(const Request& request, const std::string& key, int otherwise, int least, int most) {
  const std::string text = request.set(key, std::to_string(otherwise));
  const bool digits = !text.empty() && text.size() <= 9 && text.find_first_not_of("0123456789") == std::string::npos;
  const int value = digits ? std::atoi(text.c_str()) : least - 1;
  if (value < least || value > most)
    throw core::Error("--set " + key + "=" + comment_text(text.substr(0, 40)) + ": want a number from " +
                      std::to_string(least) + " to " + std::to_string(most));
  return value;
}

std::string choice_setting(const Request& request, const std::string& key, std::string_view otherwise,
                           const std::vector<std::string>& allowed) {
  const std::string text = request.set(key, otherwise);
  if (std::find(allowed.begin(), allowed.end(), text) != allowed.end()) return text;
  std::string list;
  for (const std::string& a : allowed) list += (list.empty() ? "" : ", ") + a;
  throw core::Error("--set " + key + "=" + comment_text(text.substr(0, 40)) + ": want one of " + list +
                    core::suggestion(text, allowed));
}

std::string model_storage(const Request& request) {
  const double bytes = models::count_parameters(request.architecture).total * 2 * 1.25;  // bf16 at most
  return std::to_string(std::max<int64_t>(1, std::llround(std::ceil(bytes / (1 << 30))))) + "Gi";
}

Json model_claim(const Request& request, const std::string& name, std::string_view component) {
  Json spec = {
      {"accessModes", Json::array({"ReadWriteMany"})},
      {"resources", {{"requests", {{"storage", quantity_setting(request, "storage-size", model_storage(request))}}}}}};
  const std::string storage_class = request.set("storage-class", "");
  if (!storage_class.empty()) spec["storageClassName"] = kube_subdomain(storage_class);
  return kube_object("v1", "PersistentVolumeClaim", kube_metadata(request, name, component), spec);
}

}  // namespace drydock::generators
