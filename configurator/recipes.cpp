#include "configurator/recipes.h"

#include <algorithm>

#include "configurator/space.h"

namespace drydock::configurator {
namespace {

bool is_latent(const models::Architecture& architecture) {
  using models::AttentionKind;
  return std::any_of(architecture.kinds.begin(), architecture.kinds.end(), [](const models::LayerKind& kind) {
    return kind.attention.kind == AttentionKind::mla || kind.attention.kind == AttentionKind::sparse_mla;
  });
}

}  // namespace

void follow_recipe(models::Plan& plan, const models::Architecture& architecture, bool blackwell,
                   std::set<std::string>& readings) {
  models::Pool& pool = plan.pools.front();
  if (pool.role != models::Role::worker) return;
  const models::Workload& w = plan.workload;
  const bool trtllm = plan.backend == models::Backend::trtllm, latent = is_latent(architecture);
  if (trtllm && !has_experts(architecture) && w.isl == 1024 && w.osl == 1024 && pool.parallelism.tp < 8) {
    pool.waits.steps = 20;
    pool.waits.share = 0.9;
    readings.insert("batch_wait_of_20_steps");
  }
  if (trtllm && pool.parallelism.attention_dp > 1) {
    pool.waits.balance = latent ? 60 : 50;  // 50 and 10: TensorRT-LLM's own defaults
    pool.waits.balance_batching = latent ? 0 : 10;
    readings.insert("balanced_ranks");
  }
  if (plan.backend == models::Backend::sglang && blackwell && latent) {
    constexpr double kBusy = 16;
    pool.waits.poll = w.concurrency.value_or(1) >= kBusy ? 30 : 10;
    readings.insert("polls_of_10_or_30_steps");
  }
}

}  // namespace drydock::configurator
