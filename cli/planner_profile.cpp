#include "cli/planner_profile.h"

#include <algorithm>
#include <cmath>

#include "configurator/predict.h"

namespace drydock::cli {
namespace {

constexpr int kPromptPoints = 14, kContextPoints = 6, kBatchPoints = 8;

// `count` whole numbers from `least` to `most`, evenly spaced in their logarithm, each once.
std::vector<int64_t> spread_out(int64_t least, int64_t most, int count) {
  std::vector<int64_t> out;
  const double ratio = static_cast<double>(most) / static_cast<double>(least);
  for (int i = 0; i < count; ++i)
    out.push_back(std::llround(static_cast<double>(least) * std::pow(ratio, static_cast<double>(i) / (count - 1))));
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

// Evenly spaced, as the planner fits a surface through them.
std::vector<int64_t> evenly(int64_t least, int64_t most, int count) {
  std::vector<int64_t> out;
  for (int i = 0; i < count; ++i) out.push_back(least + (most - least) * i / (count - 1));
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

// The profiler sends prompts one at a time, and counts every rank as busy as the one that has it.
void add_prompts(const simulator::Engine& engine, int gpus, models::Workload workload, int64_t longest,
                 generators::PlannerProfile& profile) {
  workload.prefix_hit = 0;
  const int64_t most = std::min(longest - 1, std::max<int64_t>(8192, 4 * workload.isl));
  for (const int64_t tokens : spread_out(std::min<int64_t>(64, most), most, kPromptPoints)) {
    workload.isl = tokens;
    const double ms = engine.prefill(workload, 1).batch_ms.value + engine.outside_ms(1);
    profile.prompt_tokens.push_back(tokens);
    profile.ttft_ms.push_back(ms);
    profile.prompt_tokens_per_s_gpu.push_back(static_cast<double>(tokens) / ms * 1000 * engine.ranks() / gpus);
  }
}

void add_tokens(const simulator::Engine& engine, const simulator::Part& part, int gpus, models::Workload workload,
                int64_t longest, generators::PlannerProfile& profile) {
  const int ranks = engine.ranks();
  const double room = engine.kv_tokens() * ranks;
  profile.max_kv_tokens = std::llround(std::floor(room));
  workload.osl = std::max<int64_t>(2, std::min(workload.osl, longest / 8));
  const int64_t most = std::min(longest - workload.osl, 2 * (workload.isl + workload.osl));
  for (const int64_t prompt : evenly(std::min<int64_t>(64, most), most, kContextPoints)) {
    workload.isl = prompt;
    const double context = static_cast<double>(prompt) + static_cast<double>(workload.osl) / 2;
    const auto fitting = static_cast<int64_t>(room / static_cast<double>(prompt + workload.osl)) / ranks;
    const int64_t a_rank = std::min(fitting, part.max_batch / ranks);
    if (a_rank < 1) continue;
    for (const int64_t batch : spread_out(1, a_rank, a_rank > 1 ? kBatchPoints : 2)) {
      const double sequences = static_cast<double>(batch * ranks);
      const double ms = engine.decode(workload, sequences).tpot_ms.value;
      profile.kv_usage.push_back(std::min(1.0, sequences * context / room));
      profile.context_tokens.push_back(context);
      profile.itl_ms.push_back(ms);
      profile.output_tokens_per_s_gpu.push_back(sequences / ms * 1000 / gpus);
    }
  }
}

}  // namespace

generators::PlannerProfile planner_profile(const models::Plan& plan, configurator::Resources& resources) {
  const configurator::Instances instances = configurator::instances_of(plan, resources);
  const int64_t longest = resources.model(plan.model).max_context;
  generators::PlannerProfile profile;
  for (const simulator::Part& part : instances.deployment.parts) {
    const int gpus = plan.pool(part.role).parallelism.gpus();
    if (part.role != models::Role::decode) add_prompts(*part.engine, gpus, plan.workload, longest, profile);
    if (part.role != models::Role::prefill) add_tokens(*part.engine, part, gpus, plan.workload, longest, profile);
  }
  return profile;
}

}  // namespace drydock::cli
