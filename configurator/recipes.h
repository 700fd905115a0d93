#pragma once
// Switches of engines that columns of points don't say, as the launch scripts of the InferenceX benchmark set them.
#include <set>
#include <string>

#include "models/architecture.h"
#include "models/plan.h"

namespace drydock::configurator {

// Changes the pools of a plan whose lengths are that benchmark's, its concurrency given; `readings` gets the names of
// the rules that did:
// batch_wait_of_20_steps (TensorRT-LLM, dense, 1024/1024 on fewer than 8 GPUs: batch_wait_timeout_iters 20 and
// batch_wait_max_tokens_ratio 0.9), balanced_ranks (TensorRT-LLM under attention DP: attention_dp_config),
// polls_of_10_or_30_steps (SGLang, latent attention on Blackwell: scheduler_recv_interval). docs/accuracy.md says what
// each is worth.
void follow_recipe(models::Plan& plan, const models::Architecture& architecture, bool blackwell,
                   std::set<std::string>& readings);

}  // namespace drydock::configurator
