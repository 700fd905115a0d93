#include "generators/trtllm_options.h"

#include <algorithm>

#include "core/error.h"
#include "generators/engine_figures.h"
#include "generators/speculative_text.h"

namespace drydock::generators {
namespace {

using core::Json;

core::Error trtllm_lacks(const models::Pool& pool, const std::string& what) {
  return core::Error("target trtllm: pool '" + std::string(models::name(pool.role)) + "': " + what);
}

void check_trtllm_parallelism(const Request& request, const models::Pool& pool) {
  if (const auto reason =
          models::why_not_on(models::Backend::trtllm, pool.parallelism, request.system(pool).hardware.gpus_per_node))
    throw trtllm_lacks(pool, *reason);
  if (pool.waits.poll > 1) throw trtllm_lacks(pool, "waits.poll; TensorRT-LLM looks at new requests every step");
  if (pool.two_batch_overlap) throw trtllm_lacks(pool, "two_batch_overlap; TensorRT-LLM has no such switch");
}

Json speculative_config(const Request& request, const SpeculationText& speculation, int64_t drafts) {
  if (speculation.method == "mtp") return {{"decoding_type", "MTP"}, {"num_nextn_predict_layers", drafts}};
  if (speculation.method == "ngram")
    return {{"decoding_type", "NGram"},
            {"max_draft_len", drafts},
            {"max_matching_ngram_size", std::max<int64_t>(4, drafts)}};
  Json out = {{"decoding_type", speculation.method == "eagle" ? "Eagle" : "Draft_Target"},
              {"max_draft_len", drafts},
              {"speculative_model_dir", draft_model(request, speculation.method)}};
  if (speculation.method == "eagle") out["eagle3_one_model"] = true;
  return out;
}

}  // namespace

Flags trtllm_flags(const Request& request, const models::Pool& pool) {
  engine_version(request, kTrtllmVersions);
  check_trtllm_parallelism(request, pool);
  quantization_flag(request, false);
  const EngineFigures f = engine_figures(request, pool);
  const models::Parallelism& p = pool.parallelism;
  Flags flags = {{"--backend", "pytorch"},
                 {"--tp_size", p.tp * p.attention_dp},
                 {"--pp_size", p.pp},
                 {"--max_batch_size", f.sequences},
                 {"--max_num_tokens", f.tokens},
                 {"--max_seq_len", f.longest},
                 {"--kv_cache_free_gpu_memory_fraction", f.of_free()}};
  if (p.ep > 1) flags.push_back({"--ep_size", p.ep});
  return flags;
}

Json trtllm_options(const Request& request, const models::Pool& pool) {
  const EngineFigures f = engine_figures(request, pool);
  Json out = {
      {"return_perf_metrics", true},  // off by default; targets grafana and alerts read them
      {"enable_attention_dp", pool.parallelism.attention_dp > 1},
      {"enable_chunked_prefill",
       static_cast<double>(request.plan.workload.isl) * request.plan.workload.longest > static_cast<double>(f.tokens)},
      {"cuda_graph_config", {{"enable_padding", true}, {"max_batch_size", f.graph_batch}}},
      {"kv_cache_config",
       {{"dtype", request.precision.kv == core::Dtype::fp8 ? "fp8" : "auto"},
        {"free_gpu_memory_fraction", f.of_free()},
        {"max_tokens", f.kv_tokens},
        {"tokens_per_block", models::kKvBlockTokens},
        {"enable_block_reuse", request.plan.workload.prefix_hit > 0}}}};
  if (pool.role == models::Role::prefill) out["disable_overlap_scheduler"] = true;
  if (request.plan.workload.stream_interval > 1) out["stream_interval"] = request.plan.workload.stream_interval;
  const models::PromptWaits& waits = pool.waits;
  if (waits.steps > 0) {
    out["batch_wait_timeout_iters"] = waits.steps;
    out["batch_wait_max_tokens_ratio"] = waits.share;
  }
  if (waits.balance > 0)
    out["attention_dp_config"] = {
        {"enable_balance", true}, {"timeout_iters", waits.balance}, {"batching_wait_iters", waits.balance_batching}};
  if (f.redundant > 0)  // balanced as it runs: placements in a file are for one set of weights
    out["moe_config"] = {{"load_balancer", {{"num_slots", request.plan.experts.slots}, {"layer_updates_per_iter", 1}}}};
  if (const auto speculation = speculation_text(request.plan.speculative); speculation && f.drafts > 0)
    out["speculative_config"] = speculative_config(request, *speculation, f.drafts);
  if (request.plan.mode == models::Mode::disagg)
    out["cache_transceiver_config"] = {{"backend", "NIXL"}, {"max_tokens_in_buffer", f.longest}};
  return out;
}

}  // namespace drydock::generators
