#include "models/system.h"

#include "core/json.h"

namespace drydock::models {

System read_system(const std::filesystem::path& json) {
  const core::Json document = core::read_json(json);
  const core::Fields f(document, json.string());
  f.only({"name", "gpu", "architecture", "sm_version", "sms", "memory_bytes", "memory_bytes_per_s", "flops_per_s",
          "nvlink_bytes_per_s", "nvlink_domain", "pcie_bytes_per_s", "network_bytes_per_s", "gpus_per_node",
          "gpus_per_rack", "power_w", "price_per_gpu_hour", "source"});
  constexpr double kLeastRate = 1e9, kMostRate = 1e18;  // below: somebody wrote TFLOP/s
  constexpr double kLeastBytes = 1e6, kMostBytes = 1e15;
  System s;
  core::Hardware& h = s.hardware;
  h.name = f.text("name");
  s.gpu = f.text_or("gpu", h.name);
  h.architecture = f.text("architecture");
  h.sm_version = static_cast<int>(f.integer("sm_version", 70, 999));
  h.sms = static_cast<int>(f.integer("sms", 1, 10000));
  s.memory_bytes = f.number("memory_bytes", 1e9, kMostBytes);
  h.memory_bytes_per_s = f.number("memory_bytes_per_s", 1e9, kMostBytes);
  const core::Fields rates = f.object("flops_per_s");
  for (const auto& [name, value] : rates.json().items()) {
    const auto dtype = core::parse_dtype(name);
    if (!dtype) throw rates.error(name.substr(0, 60), "is no number format; want bf16, fp8, int8, nvfp4 or mxfp4");
    h.flops_per_s[static_cast<size_t>(*dtype)] = rates.number(name, kLeastRate, kMostRate);
  }
  if (h.flops_per_s[static_cast<size_t>(core::Dtype::bf16)] == 0)
    throw rates.error("bf16", "missing; every system needs it");
  h.nvlink_bytes_per_s = f.number_or("nvlink_bytes_per_s", 0, 0, kMostBytes);
  h.nvlink_domain = static_cast<int>(f.integer_or("nvlink_domain", 1, 1, 1 << 16));
  if (h.nvlink_domain > 1 && h.nvlink_bytes_per_s < kLeastBytes)
    throw f.error("nvlink_bytes_per_s", "want at least 1e6 when nvlink_domain is over 1");
  h.pcie_bytes_per_s = f.number("pcie_bytes_per_s", kLeastBytes, kMostBytes);
  h.network_bytes_per_s = f.number("network_bytes_per_s", kLeastBytes, kMostBytes);
  h.gpus_per_node = static_cast<int>(f.integer("gpus_per_node", 1, 1 << 16));
  s.gpus_per_rack = static_cast<int>(f.integer_or("gpus_per_rack", h.gpus_per_node, h.gpus_per_node, 1 << 16));
  s.power_w = f.number_or("power_w", 0, 1, 1e5);
  s.price_per_gpu_hour = f.optional_number("price_per_gpu_hour", 1e-6, 1e6);
  s.source = f.text_or("source", json.string());
  return s;
}

}  // namespace drydock::models
