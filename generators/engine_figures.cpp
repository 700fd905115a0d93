#include "generators/engine_figures.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/text.h"
#include "generators/speculative_text.h"
#include "models/lowering.h"

namespace drydock::generators {
namespace {

constexpr double kThousand = 1000;
constexpr int64_t kSpecialTokens = 32;   // begin, roles and end of a chat beside the tokens asked for
constexpr int64_t kLargestGraph = 2048;  // beyond, a graph's memory is worth more than the launches it saves
constexpr double kMostOfMemory = 0.99;

double up_to_thousandth(double share) { return std::ceil(share * kThousand - 1e-6) / kThousand; }

core::Error pool_error(const models::Pool& pool, const std::string& what) {
  return core::Error("plan: pool '" + std::string(models::name(pool.role)) + "' " + what);
}

std::string no_flag(const std::string& where, const std::string& name) {
  if (name.starts_with('-'))
    throw core::Error(where + " '" + name.substr(0, 60) + "': begins as a flag does; want a name or a path");
  return name;
}

// Fills the memory figures, those of the stage that wants the most.
void share_memory(const Request& request, const models::Pool& pool, EngineFigures& f) {
  const models::Parallelism& p = pool.parallelism;
  const int64_t experts = routed_experts(request.architecture);
  const double copies = f.redundant > 0 ? static_cast<double>(experts + f.redundant) / static_cast<double>(experts) : 1;
  f.memory = request.system(pool).memory_bytes;
  double room = f.memory * request.memory_fraction, most = -1;
  std::vector<models::StageMemory> stages;
  for (int stage = 0; stage < p.pp; ++stage) {
    stages.push_back(models::stage_memory(request.architecture, request.precision, p, stage, f.tokens, copies));
    room = std::min(room, f.memory * request.memory_fraction - stages.back().fixed());
  }
  f.kv_tokens = pool.kv_blocks * models::kKvBlockTokens;
  for (const models::StageMemory& stage : stages) {
    if (pool.kv_blocks == 0 && stage.kv_per_token > 0) {  // a plan of a person's: what the memory leaves
      const auto fitting = static_cast<int64_t>(std::max(0.0, room) / stage.kv_per_token);
      f.kv_tokens = f.kv_tokens == 0 ? fitting : std::min(f.kv_tokens, fitting);
    }
  }
  for (const models::StageMemory& stage : stages) {
    const double kv = stage.kv_per_token > 0 ? stage.kv_per_token * static_cast<double>(f.kv_tokens)
                                             : stage.state_per_sequence * static_cast<double>(f.sequences);
    if (stage.fixed() + kv <= most) continue;
    most = stage.fixed() + kv;
    f.weights = stage.weights, f.fixed = stage.fixed(), f.kv = kv;
  }
}

}  // namespace

double EngineFigures::of_all() const { return up_to_thousandth((fixed + kv) / memory); }
double EngineFigures::weights_kv() const { return up_to_thousandth((weights + kv) / memory); }
double EngineFigures::of_free() const { return up_to_thousandth(kv / (memory - fixed)); }

int64_t routed_experts(const models::Architecture& architecture) {
  int64_t experts = 0;
  for (const models::LayerKind& kind : architecture.kinds)
    if (kind.ffn) experts = std::max(experts, kind.ffn->experts);
  return experts;
}

EngineFigures engine_figures(const Request& request, const models::Pool& pool) {
  const models::Workload& w = request.plan.workload;
  const auto longest = [&](int64_t tokens) {
    return static_cast<int64_t>(std::ceil(static_cast<double>(tokens) * w.longest));
  };
  EngineFigures f;
  const int64_t ranks = pool.parallelism.attention_dp;
  f.sequences = (pool.max_batch + ranks - 1) / ranks;
  f.tokens = pool.max_tokens;
  if (w.isl + w.osl > request.architecture.max_context)
    throw pool_error(pool, "serves " + std::to_string(w.isl) + " + " + std::to_string(w.osl) +
                               " tokens; the context of " + request.architecture.name + " is " +
                               std::to_string(request.architecture.max_context));
  f.longest = std::min(longest(w.isl) + longest(w.osl) + kSpecialTokens, request.architecture.max_context);
  if (const auto speculation = speculation_text(request.plan.speculative);
      speculation && pool.role != models::Role::prefill)
    f.drafts = speculation->drafts;
  if (request.plan.experts.slots > 0 && pool.parallelism.ep > 1)
    f.redundant = std::max<int64_t>(0, request.plan.experts.slots - routed_experts(request.architecture));
  f.graph_batch = std::min(f.sequences, kLargestGraph);
  share_memory(request, pool, f);
  if (f.kv <= 0 || f.fixed + f.kv > f.memory * kMostOfMemory)
    throw pool_error(pool, "does not fit: " + std::to_string(std::llround(f.fixed / (1 << 30))) +
                               " GiB of weights and buffers and " + std::to_string(std::llround(f.kv / (1 << 30))) +
                               " GiB of KV cache on a GPU of " + std::to_string(std::llround(f.memory / (1 << 30))) +
                               " GiB; lower kv_blocks");
  return f;
}

std::string model_path(const Request& request) {
  const std::string path = request.set("model-path", "");
  if (!path.empty()) return no_flag("--set model-path", path);
  const std::string &typed = request.plan.model, config = "config.json";
  if (typed.ends_with("/" + config))
    return no_flag("plan: field 'model'", typed.substr(0, typed.size() - config.size() - 1));
  const bool alias =
      typed.find('/') == std::string::npos || core::lower_case(typed) == core::lower_case(request.architecture.name);
  return no_flag("plan: field 'model'", alias ? request.architecture.name : typed);
}

std::string served_name(const Request& request) {
  const std::string name = request.set("served-name", "");
  return name.empty() ? model_path(request) : no_flag("--set served-name", name);
}

std::string draft_model(const Request& request, const std::string& method) {
  const std::string draft = request.set("draft-model", "");
  if (draft.empty())
    throw core::Error("plan: field 'speculative': a model drafts for " + method + "; name it with --set draft-model=");
  return no_flag("--set draft-model", draft);
}

std::string quantization_flag(const Request& request, bool quantizes_while_loading) {
  const models::Precision &published = request.architecture.precision, &asked = request.precision;
  const bool same =
      published.gemm == asked.gemm && published.moe == asked.moe && published.attention_gemm == asked.attention_gemm;
  if (same || !request.set("model-path", "").empty()) return "";
  using core::Dtype;
  const bool online = published.gemm == Dtype::bf16 && asked.gemm == Dtype::fp8;
  if (online && quantizes_while_loading) return "fp8";
  throw core::Error("plan: field 'precision': " + request.architecture.name + " is published in " +
                    std::string(core::name(published.moe)) + ", and this engine does not make " +
                    std::string(core::name(asked.moe)) +
                    " of it as it loads; name a checkpoint that is with --set model-path=");
}

}  // namespace drydock::generators
