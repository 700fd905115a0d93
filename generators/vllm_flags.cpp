#include "generators/vllm_flags.h"

#include "core/error.h"
#include "generators/engine_figures.h"
#include "generators/speculative_text.h"

namespace drydock::generators {
namespace {

using core::Json;

void add_vllm_parallelism(const Request& request, const models::Pool& pool, Flags& flags) {
  const models::Parallelism& p = pool.parallelism;
  if (const auto reason = models::why_not_on(models::Backend::vllm, p, request.system(pool).hardware.gpus_per_node))
    throw core::Error("target vllm: pool '" + std::string(models::name(pool.role)) + "': " + *reason);
  if (pool.waits != models::PromptWaits{})
    throw core::Error("target vllm: pool '" + std::string(models::name(pool.role)) +
                      "': waits; vLLM starts prompts as soon as they fit");
  flags.push_back({"--tensor-parallel-size", p.tp});
  if (p.pp > 1) flags.push_back({"--pipeline-parallel-size", p.pp});
  if (p.attention_dp > 1) flags.push_back({"--data-parallel-size", p.attention_dp});
  if (p.ep > 1) flags.push_back({"--enable-expert-parallel"});
}

void add_vllm_experts(const EngineFigures& f, const models::Pool& pool, Flags& flags) {
  if (f.redundant > 0) {
    flags.push_back({"--enable-eplb"});
    flags.push_back({"--eplb-config", Json{{"num_redundant_experts", f.redundant}}});
  }
  if (pool.two_batch_overlap) flags.push_back({"--enable-dbo"});
}

// vllm/config/speculative.py: method names and what each needs.
void add_vllm_speculation(const Request& request, const EngineFigures& f, Flags& flags) {
  const auto speculation = speculation_text(request.plan.speculative);
  if (!speculation || f.drafts == 0) return;
  Json config = {{"num_speculative_tokens", f.drafts}};
  if (speculation->method == "mtp") {
    config["method"] = "mtp";
  } else if (speculation->method == "ngram") {
    config["method"] = "ngram";
    config["prompt_lookup_max"] = std::max<int64_t>(4, f.drafts);
    config["prompt_lookup_min"] = 2;
  } else {
    config["method"] = speculation->method == "eagle" ? "eagle3" : "draft_model";
    config["model"] = draft_model(request, speculation->method);
  }
  flags.push_back({"--speculative-config", config});
}

}  // namespace

Flags vllm_flags(const Request& request, const models::Pool& pool) {
  engine_version(request, kVllmVersions);
  const EngineFigures f = engine_figures(request, pool);
  const bool fp8_kv = request.precision.kv == core::Dtype::fp8;
  Flags flags;
  add_vllm_parallelism(request, pool, flags);
  if (const std::string method = quantization_flag(request, true); !method.empty())
    flags.push_back({"--quantization", method});
  flags.push_back({"--kv-cache-dtype", fp8_kv ? "fp8" : "bfloat16"});
  flags.push_back({"--max-model-len", f.longest});
  flags.push_back({"--max-num-seqs", f.sequences});
  flags.push_back({"--max-num-batched-tokens", f.tokens});
  flags.push_back({"--enable-chunked-prefill"});
  flags.push_back({"--gpu-memory-utilization", f.of_all()});
  flags.push_back({request.plan.workload.prefix_hit > 0 ? "--enable-prefix-caching" : "--no-enable-prefix-caching"});
  flags.push_back({"--max-cudagraph-capture-size", f.graph_batch * (1 + f.drafts)});
  flags.push_back(
      {"--no-async-scheduling"});  // the simulator's vLLM schedules a step when it knows the last one's tokens
  if (request.plan.workload.stream_interval > 1)
    flags.push_back({"--stream-interval", request.plan.workload.stream_interval});
  add_vllm_experts(f, pool, flags);
  add_vllm_speculation(request, f, flags);
  if (request.plan.mode == models::Mode::disagg)
    flags.push_back({"--kv-transfer-config", Json{{"kv_connector", "NixlConnector"}, {"kv_role", "kv_both"}}});
  return flags;
}

}  // namespace drydock::generators
