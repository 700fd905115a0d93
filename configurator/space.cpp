#include "configurator/space.h"

#include <algorithm>
#include <bit>
#include <tuple>

namespace drydock::configurator {
namespace {

bool power_of_two(int n) { return std::has_single_bit(static_cast<unsigned>(n)); }

std::vector<int> divisors(int n) {
  std::vector<int> out;
  for (int i = 1; i <= n; ++i)
    if (n % i == 0) out.push_back(i);
  return out;
}

// GPUs that a deployment of `gpus` has on each of its nodes: of 12 on nodes of 8 six, as it lies evenly on two.
int gpus_of_a_node(int gpus, int node) {
  const int nodes = (gpus + node - 1) / node;
  return gpus % nodes == 0 ? gpus / nodes : node;
}

// How many GPUs an instance may have: powers of two, which always find room, and what divides the deployment's GPUs and
// either a node's share of them or whole nodes.
std::vector<int> instance_sizes(int gpus, int most, int share) {
  std::vector<int> out;
  for (int n = 1; n <= most; ++n)
    if (power_of_two(n) || (gpus % n == 0 && (share % n == 0 || n % share == 0))) out.push_back(n);
  return out;
}

}  // namespace

bool has_experts(const models::Architecture& architecture) {
  return std::any_of(architecture.kinds.begin(), architecture.kinds.end(),
                     [](const models::LayerKind& k) { return k.ffn && k.ffn->is_moe(); });
}

std::vector<models::Parallelism> parallelisms(const models::Architecture& architecture, const models::System& system,
                                              int gpus, int most) {
  const bool moe = has_experts(architecture);
  const auto& hardware = system.hardware;
  const int close = std::max(hardware.nvlink_domain, hardware.nvlink_bytes_per_s > 0 ? 1 : hardware.gpus_per_node);
  const int share = gpus_of_a_node(gpus, std::max(1, hardware.gpus_per_node));
  constexpr int kMostStages = 16;
  std::vector<models::Parallelism> out;
  for (const int of_instance : instance_sizes(gpus, most, share)) {
    const std::vector<int> sizes = divisors(of_instance);
    for (const int tp : sizes) {
      // The ranks of a TP group lie on one node, or fill several.
      if (tp > close || !(power_of_two(of_instance) || share % tp == 0 || tp % share == 0)) continue;
      for (const int pp : divisors(of_instance / tp)) {
        const int dp = of_instance / tp / pp;
        if (pp > kMostStages || (dp > 1 && !moe)) continue;
        for (const int ep : divisors(moe ? tp * dp : 1)) out.push_back({tp, pp, dp, moe ? tp * dp / ep : 1, ep});
      }
    }
  }
  // In order of TP, PP and attention DP: plans that are equally good keep their order.
  std::stable_sort(out.begin(), out.end(), [](const models::Parallelism& a, const models::Parallelism& b) {
    return std::tie(a.tp, a.pp, a.attention_dp) < std::tie(b.tp, b.pp, b.attention_dp);
  });
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
