#include "profiler/system_json.h"

#include "core/json.h"

namespace drydock::profiler {

std::string to_json(const models::System& s) {
  const core::Hardware& h = s.hardware;
  core::Json rates = core::Json::object();
  for (int i = 0; i < core::kDtypes; ++i)
    if (const double rate = h.flops_per_s[static_cast<size_t>(i)]; rate > 0)
      rates[std::string(core::name(static_cast<core::Dtype>(i)))] = rate;
  core::Json out = {{"name", h.name},
                    {"gpu", s.gpu},
                    {"architecture", h.architecture},
                    {"sm_version", h.sm_version},
                    {"sms", h.sms},
                    {"memory_bytes", s.memory_bytes},
                    {"memory_bytes_per_s", h.memory_bytes_per_s},
                    {"flops_per_s", rates},
                    {"nvlink_bytes_per_s", h.nvlink_bytes_per_s},
                    {"nvlink_domain", h.nvlink_domain},
                    {"pcie_bytes_per_s", h.pcie_bytes_per_s},
                    {"network_bytes_per_s", h.network_bytes_per_s},
                    {"gpus_per_node", h.gpus_per_node},
                    {"gpus_per_rack", s.gpus_per_rack}};
  if (s.power_w > 0) out["power_w"] = s.power_w;
  if (s.price_per_gpu_hour) out["price_per_gpu_hour"] = *s.price_per_gpu_hour;
  out["source"] = s.source;
  return out.dump(2) + "\n";
}

}  // namespace drydock::profiler
