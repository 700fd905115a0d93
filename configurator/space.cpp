#include "configurator/space.h"

#include <algorithm>

namespace drydock::configurator {

bool has_experts(const models::Architecture& architecture) {
  return std::any_of(architecture.kinds.begin(), architecture.kinds.end(),
                     [](const models::LayerKind& k) { return k.ffn && k.ffn->is_moe(); });
}

std::vector<models::Parallelism> parallelisms(const models::Architecture& architecture, const models::System& system,
                                              int gpus) {
  const bool moe = has_experts(architecture);
  const auto& hardware = system.hardware;
  const int close = std::max(hardware.nvlink_domain, hardware.nvlink_bytes_per_s > 0 ? 1 : hardware.gpus_per_node);
  constexpr int kMostStages = 16;
  std::vector<models::Parallelism> out;
  for (int tp = 1; tp <= std::min(gpus, close); tp *= 2)
    for (int pp = 1; pp <= kMostStages && tp * pp <= gpus; pp *= 2)
      for (int dp = 1; tp * pp * dp <= gpus && (dp == 1 || moe); dp *= 2)
        for (int ep = 1; ep <= (moe ? tp * dp : 1); ep *= 2) out.push_back({tp, pp, dp, moe ? tp * dp / ep : 1, ep});
  return out;
}

std::vector<int64_t> batches(int64_t most) {
  std::vector<int64_t> out;
  for (int64_t batch = 1; batch < most; batch += std::max<int64_t>(1, (batch + 3) / 5)) out.push_back(batch);
  if (most > 0) out.push_back(most);
  return out;
}

std::vector<int64_t> token_budgets(const models::Workload& workload, int64_t usual) {
  std::vector<int64_t> out{usual};
  if (workload.isl > usual / 4) out.push_back(usual / 4);
  if (workload.isl > usual / 2) out.push_back(2 * usual);
  return out;
}

}  // namespace drydock::configurator
