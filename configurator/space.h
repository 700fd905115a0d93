#pragma once
// The parallel sizes, batches and budgets that a search tries.
#include <cstdint>
#include <vector>

#include "models/architecture.h"
#include "models/plan.h"
#include "models/system.h"

namespace drydock::configurator {

// Every combination for one instance of at most `most` of a deployment's `gpus` GPUs, legal or not: TP inside the
// NVLink domain (or node, without NVLink), pipeline stages and attention DP x EP beyond it; experts only for MoE
// models. An instance has a power of two of GPUs, or divides `gpus` and lies evenly on nodes, so that all its copies
// find room on the fewest nodes that have so many GPUs: 3 or 6 of 6, 24 of 24 on nodes of 8, but not 3 of 24.
std::vector<models::Parallelism> parallelisms(const models::Architecture& architecture, const models::System& system,
                                              int gpus, int most);

// 1, 2, 3, 4, 5, 6, 7, 9, 11 ... in steps of about a fifth up to `most`, and `most`.
std::vector<int64_t> batches(int64_t most);

// Token budgets of a step worth trying when a prompt has `isl` tokens.
std::vector<int64_t> token_budgets(const models::Workload& workload, int64_t usual);

bool has_experts(const models::Architecture& architecture);

}  // namespace drydock::configurator
