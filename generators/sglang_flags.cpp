#include "generators/sglang_flags.h"

#include "core/error.h"
#include "generators/engine_figures.h"
#include "generators/speculative_text.h"

namespace drydock::generators {
namespace {

// What changed: 0.5.15 names the decode graph's size apart from the prefill one's, and 0.5.16 to 0.5.22 took the plain
// name away; 0.5.22 knows the size of attention DP instead of a switch, which it still takes, with a warning.
struct SglangNames {
  std::string_view graph_batch;
  bool attention_dp_size;
};

SglangNames sglang_names(const EngineVersion& version) {
  return {version < EngineVersion{{0, 5, 15}} ? "--cuda-graph-max-bs" : "--cuda-graph-max-bs-decode",
          version >= EngineVersion{{0, 5, 22}}};
}

// --tp-size counts all ranks of attention: tp x attention_dp.
void add_sglang_parallelism(const models::Parallelism& p, const SglangNames& names, Flags& flags) {
  flags.push_back({"--tp-size", p.tp * p.attention_dp});
  if (p.pp > 1) flags.push_back({"--pp-size", p.pp});
  if (p.attention_dp > 1 && names.attention_dp_size) {
    flags.push_back({"--attn-dp-size", p.attention_dp});
  } else if (p.attention_dp > 1) {
    flags.push_back({"--dp-size", p.attention_dp});
    flags.push_back({"--enable-dp-attention"});
  }
  if (p.ep > 1) flags.push_back({"--ep-size", p.ep});
}

void add_sglang_speculation(const Request& request, const EngineFigures& f, Flags& flags) {
  const auto speculation = speculation_text(request.plan.speculative);
  if (!speculation || f.drafts == 0) return;
  const bool ngram = speculation->method == "ngram", mtp = speculation->method == "mtp";
  flags.push_back({"--speculative-algorithm", ngram                            ? "NGRAM"
                                              : speculation->method == "draft" ? "STANDALONE"
                                              : mtp                            ? "EAGLE"
                                                                               : "EAGLE3"});
  if (!ngram) {  // a chain: one candidate a step
    flags.push_back({"--speculative-num-steps", f.drafts});
    flags.push_back({"--speculative-eagle-topk", 1});
  }
  flags.push_back({"--speculative-num-draft-tokens", f.drafts + 1});
  if (ngram || mtp) return;
  flags.push_back({"--speculative-draft-model-path", draft_model(request, speculation->method)});
}

void add_sglang_experts(const EngineFigures& f, const models::Pool& pool, Flags& flags) {
  if (f.redundant > 0) {
    flags.push_back({"--enable-eplb"});
    flags.push_back({"--ep-num-redundant-experts", f.redundant});
  }
  if (pool.two_batch_overlap) flags.push_back({"--enable-two-batch-overlap"});
}

}  // namespace

Flags sglang_flags(const Request& request, const models::Pool& pool) {
  const SglangNames names = sglang_names(engine_version(request, kSglangVersions));
  const EngineFigures f = engine_figures(request, pool);
  const int64_t ranks = pool.parallelism.attention_dp;
  if (const auto reason =
          models::why_not_on(models::Backend::sglang, pool.parallelism, request.system(pool).hardware.gpus_per_node))
    throw core::Error("target sglang: pool '" + std::string(models::name(pool.role)) + "': " + *reason);
  if (pool.waits.steps > 0 || pool.waits.balance > 0)
    throw core::Error("target sglang: pool '" + std::string(models::name(pool.role)) +
                      "': waits.steps and waits.balance; SGLang has no such switches, but waits.poll");
  Flags flags;
  add_sglang_parallelism(pool.parallelism, names, flags);
  if (const std::string method = quantization_flag(request, true); !method.empty())
    flags.push_back({"--quantization", method});
  flags.push_back({"--kv-cache-dtype", request.precision.kv == core::Dtype::fp8 ? "fp8_e4m3" : "bfloat16"});
  flags.push_back({"--context-length", f.longest});
  flags.push_back({"--max-running-requests", f.sequences * ranks});
  flags.push_back({"--chunked-prefill-size", f.tokens * ranks});
  flags.push_back({"--max-prefill-tokens", f.tokens});
  flags.push_back({"--mem-fraction-static", f.weights_kv()});
  flags.push_back({"--max-total-tokens", f.kv_tokens});
  flags.push_back({std::string(names.graph_batch), f.graph_batch});
  if (request.plan.workload.prefix_hit <= 0) flags.push_back({"--disable-radix-cache"});
  if (request.plan.workload.stream_interval > 1)
    flags.push_back({"--stream-interval", request.plan.workload.stream_interval});
  if (pool.waits.poll > 1) flags.push_back({"--scheduler-recv-interval", pool.waits.poll});
  flags.push_back({"--enable-metrics"});  // off by default; targets grafana and alerts read them
  add_sglang_experts(f, pool, flags);
  add_sglang_speculation(request, f, flags);
  if (request.plan.mode == models::Mode::disagg) {
    flags.push_back({"--disaggregation-mode", std::string(models::name(pool.role))});
    flags.push_back({"--disaggregation-transfer-backend", "nixl"});
  }
  return flags;
}

}  // namespace drydock::generators
