#include "generators/planner_profile.h"

#include "generators/npz.h"

namespace drydock::generators {

core::Json planner_prefill_json(const PlannerProfile& p) {
  return {{"prefill_isl", p.prompt_tokens},
          {"prefill_ttft", p.ttft_ms},
          {"prefill_thpt_per_gpu", p.prompt_tokens_per_s_gpu}};
}

core::Json planner_decode_json(const PlannerProfile& p) {
  return {{"x_kv_usage", p.kv_usage},
          {"y_context_length", p.context_tokens},
          {"z_itl", p.itl_ms},
          {"z_thpt_per_gpu", p.output_tokens_per_s_gpu},
          {"max_kv_tokens", p.max_kv_tokens}};
}

std::string planner_prefill_npz(const PlannerProfile& p) {
  return npz({{"prefill_isl", p.prompt_tokens},
              {"prefill_ttft", p.ttft_ms},
              {"prefill_thpt_per_gpu", p.prompt_tokens_per_s_gpu}});
}

std::string planner_decode_npz(const PlannerProfile& p) {
  return npz({{"x_kv_usage", p.kv_usage},
              {"y_context_length", p.context_tokens},
              {"z_itl", p.itl_ms},
              {"z_thpt_per_gpu", p.output_tokens_per_s_gpu},
              {"max_kv_tokens", std::vector<int64_t>{p.max_kv_tokens}}});
}

}  // namespace drydock::generators
