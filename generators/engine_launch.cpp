#include "generators/engine_launch.h"

#include "core/error.h"
#include "generators/engine_figures.h"
#include "generators/sglang_flags.h"
#include "generators/trtllm_options.h"
#include "generators/vllm_flags.h"

namespace drydock::generators {
namespace {

using core::Json;

// The LLM API's names for what trtllm-serve takes as flags.
Json llm_api_options(const Request& request, const models::Pool& pool) {
  Json out = {{"backend", "pytorch"}};
  for (const Flag& flag : trtllm_flags(request, pool)) {
    if (flag.name == "--tp_size") out["tensor_parallel_size"] = flag.value;
    if (flag.name == "--pp_size") out["pipeline_parallel_size"] = flag.value;
    if (flag.name == "--ep_size") out["moe_expert_parallel_size"] = flag.value;
    if (flag.name == "--max_batch_size") out["max_batch_size"] = flag.value;
    if (flag.name == "--max_num_tokens") out["max_num_tokens"] = flag.value;
    if (flag.name == "--max_seq_len") out["max_seq_len"] = flag.value;
  }
  if (pool.parallelism.moe_tp > 1) out["moe_tensor_parallel_size"] = pool.parallelism.moe_tp;
  out.update(trtllm_options(request, pool));
  return out;
}

Flags without(Flags flags, std::string_view name) {
  std::erase_if(flags, [&](const Flag& flag) { return flag.name == name; });
  return flags;
}

}  // namespace

EngineLaunch engine_launch(const Request& request, const models::Pool& pool, Host host) {
  EngineLaunch out{model_path(request), {}, nullptr};
  const bool apart = pool.role != models::Role::worker;
  switch (request.plan.backend) {
    case models::Backend::vllm:
      out.flags = words(vllm_flags(request, pool));
      break;
    case models::Backend::sglang:
      out.flags = words(without(sglang_flags(request, pool), host == Host::dynamo ? "--disaggregation-mode" : ""));
      break;
    case models::Backend::trtllm:
      out.config = llm_api_options(request, pool);
      break;
    case models::Backend::drydock:
      throw core::Error("plan: field 'backend': drydock is no engine of others; take target k8s or drydock");
  }
  if (host == Host::dynamo && apart) {
    out.flags.emplace_back("--disaggregation-mode");
    out.flags.emplace_back(models::name(pool.role));
    // SGLang's prefill workers tell decode workers of other pods at this port where blocks lie; alone they listen to
    // themselves only (examples/backends/sglang/deploy/disagg.yaml of Dynamo 1.3).
    if (request.plan.backend == models::Backend::sglang)
      out.flags.insert(out.flags.end(), {"--disaggregation-bootstrap-port", "8998", "--host", "0.0.0.0"});
  }
  return out;
}

}  // namespace drydock::generators
