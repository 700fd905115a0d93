#include "profiler/work_list.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <unordered_map>

#include "models/lowering.h"
#include "perfdb/fit.h"

namespace drydock::profiler {
namespace {

using core::Op;
using core::OpKind;
using models::BatchPart;

double log2_of(int64_t extent) { return std::log2(static_cast<double>(std::max<int64_t>(extent, 1))); }

bool has_experts(const models::Architecture& architecture) {
  return std::any_of(architecture.kinds.begin(), architecture.kinds.end(),
                     [](const models::LayerKind& k) { return k.ffn && k.ffn->is_moe(); });
}

std::string text_of(const models::Parallelism& p) {
  return "tp " + std::to_string(p.tp) + ", pp " + std::to_string(p.pp) + ", dp " + std::to_string(p.attention_dp) +
         ", ep " + std::to_string(p.ep);
}

// Bytes left for the KV cache on the fullest GPU; below 0: does not fit.
double kv_bytes_left(const Deployment& d, const models::System& system, double& kv_per_token) {
  constexpr double kShare = 0.95;       // no engine fills more
  constexpr int64_t kFewestTokens = 1;  // activations of the smallest step
  double left = system.memory_bytes;
  kv_per_token = 0;
  for (int stage = 0; stage < d.parallelism.pp; ++stage) {
    const models::StageMemory m =
        models::stage_memory(*d.architecture, d.precision, d.parallelism, stage, kFewestTokens);
    left = std::min(left, kShare * system.memory_bytes - m.weights);
    kv_per_token = std::max(kv_per_token, m.kv_per_token);
  }
  return left;
}

std::vector<int> expert_sizes(const Sizes& sizes, bool moe, int ranks) {
  if (!moe) return {1};
  if (!sizes.ep.empty()) return sizes.ep;
  return ranks > 1 ? std::vector<int>{1, ranks} : std::vector<int>{1};
}

// Adds up what steps ask for.
class Demand {
 public:
  explicit Demand(const models::System& system) : system_(system) {}

  void add(const Deployment& deployment, const Ranges& ranges) {
    double kv_per_token = 0;
    const double left = kv_bytes_left(deployment, system_, kv_per_token);
    most_kv_tokens_ = kv_per_token > 0 ? left / kv_per_token : 1e18;
    const models::Lowering lowering(*deployment.architecture, deployment.precision, deployment.parallelism);
    const std::vector<std::vector<BatchPart>> decode = decode_steps(ranges), prompt = prompt_steps(ranges);
    for (const auto* steps : {&decode, &prompt})
      for (const auto& step : *steps) {
        lower(lowering, step, 0, 1.0 / static_cast<double>(steps->size()));
        if (lowering.stages() > 1)
          lower(lowering, step, lowering.stages() - 1, 1.0 / static_cast<double>(steps->size()));
      }
  }

  std::vector<Family> families() const {
    std::map<FamilyKey, Family> found;
    double sum = 0;
    for (const auto& [op, weight] : weights_) sum += weight;
    for (const auto& [op, weight] : weights_) {
      Family& family = found[family_of(op)];
      family.key = family_of(op);
      family.candidates.push_back({op, weight / sum});
    }
    std::vector<Family> out;
    for (auto& [key, family] : found) out.push_back(std::move(family));
    return out;
  }

 private:
  // One token each; the context counts the new one.
  std::vector<std::vector<BatchPart>> decode_steps(const Ranges& r) const {
    constexpr int64_t kShortest = 16;
    std::vector<std::vector<BatchPart>> out;
    for (const int64_t batch : extents(1, r.most_batch))
      for (const int64_t context : extents(std::min(kShortest, r.most_context), r.most_context))
        if (fits(batch, context)) out.push_back({{static_cast<double>(batch), 1, context - 1, true, true}});
    return out;
  }

  // Whole prompts and chunks after cached tokens, one or more at once.
  std::vector<std::vector<BatchPart>> prompt_steps(const Ranges& r) const {
    constexpr int64_t kShortest = 16, kFewestCached = 512, kLeastChunk = 64;
    std::vector<std::vector<BatchPart>> out;
    for (const int64_t fresh : extents(std::min(kShortest, r.most_tokens), std::min(r.most_tokens, r.most_context))) {
      for (int64_t batch = 1; batch <= r.most_batch && batch * fresh <= r.most_tokens; batch *= 2)
        if (fits(batch, fresh)) out.push_back({{static_cast<double>(batch), fresh, 0, true, false}});
      for (int64_t cached = kFewestCached; fresh >= kLeastChunk && cached + fresh <= r.most_context; cached *= 2)
        if (fits(1, fresh + cached)) out.push_back({{1, fresh, cached, true, false}});
    }
    return out;
  }

  bool fits(int64_t batch, int64_t context) const {
    return static_cast<double>(batch) * static_cast<double>(context) <= most_kv_tokens_;
  }

  void lower(const models::Lowering& lowering, const std::vector<BatchPart>& step, int stage, double weight) {
    lowering.lower(step, stage, ops_);
    double total = 0;
    for (const models::LayerOp& item : ops_) total += us(item);
    for (const models::LayerOp& item : ops_)
      if (core::bytes(item.op) > 0) weights_[item.op] += weight * us(item) / total;
  }

  double us(const models::LayerOp& item) const {
    return core::bytes(item.op) > 0 ? item.count * perfdb::baseline_us(item.op, system_.hardware) : 0;
  }

  const models::System& system_;
  std::map<Op, double> weights_;
  std::vector<models::LayerOp> ops_;
  double most_kv_tokens_ = 0;
};

}  // namespace

FamilyKey family_of(const Op& op) { return {op.kind, op.dtype, op.kv_dtype, perfdb::variant(op)}; }

std::string name(const FamilyKey& key) {
  std::string out{core::name(key.kind)};
  (out += ' ') += core::name(key.dtype);
  if (key.kv_dtype != key.dtype) (out += '+') += core::name(key.kv_dtype);
  if (key.variant != perfdb::Variant{}) (out += ' ') += perfdb::variant_text(key.variant);
  return out;
}

std::vector<double> axes(const Op& op) {
  const auto& s = op.shape;
  switch (op.kind) {
    case OpKind::send_recv:
      return {log2_of(s[0]), log2_of(s[1])};
    case OpKind::sparse_mla:
      return {log2_of(s[0]), log2_of(s[1]), log2_of(s[2])};
    case OpKind::index_score:
      return {log2_of(s[0]), log2_of(s[1]), log2_of(s[2])};
    default: {
      const perfdb::Coordinates at = perfdb::coordinates(op);
      std::vector<double> out(at.begin(), at.begin() + perfdb::axis_count(op.kind));
      // The same plane, but what tiles and waves depend on is the new tokens themselves.
      if (const int context = perfdb::context_axis(op.kind); context >= 0)
        out[static_cast<size_t>(context)] = log2_of(s[1]);
      return out;
    }
  }
}

double Family::weight() const {
  double sum = 0;
  for (const Candidate& candidate : candidates) sum += candidate.weight;
  return sum;
}

std::vector<int64_t> extents(int64_t least, int64_t most) {
  std::vector<int64_t> out;
  for (int64_t power = 1; power < most; power *= 2) {
    if (power >= least) out.push_back(power);
    const int64_t between = power + power / 2;
    if (power > 1 && between >= least && between < most) out.push_back(between);
  }
  out.push_back(most);
  return out;
}

std::vector<Deployment> deployments(const models::Architecture& architecture, const models::Precision& precision,
                                    const Sizes& sizes, const models::System& system,
                                    std::vector<std::string>& reasons) {
  std::vector<Deployment> out;
  const bool moe = has_experts(architecture);
  const auto consider = [&](const models::Parallelism& p) {
    const Deployment deployment{&architecture, precision, p};
    std::optional<std::string> reason = models::why_illegal(architecture, precision, p);
    double kv_per_token = 0;
    if (!reason && kv_bytes_left(deployment, system, kv_per_token) <= 0)
      reason = "its weights do not fit the memory of " + system.name();
    if (reason)
      reasons.push_back(architecture.name + " with " + text_of(p) + ": " + *reason);
    else
      out.push_back(deployment);
  };
  for (const int tp : sizes.tp)
    for (const int pp : sizes.pp)
      for (const int dp : sizes.dp)
        for (const int ep : expert_sizes(sizes, moe, tp * dp))
          if (ep <= tp * dp && tp * dp % ep == 0) consider({tp, pp, dp, moe ? tp * dp / ep : 1, ep});
  return out;
}

std::vector<Family> work_list(const std::vector<Deployment>& deployments, const Ranges& ranges,
                              const models::System& system) {
  Demand demand(system);
  for (const Deployment& deployment : deployments) demand.add(deployment, ranges);
  return demand.families();
}

}  // namespace drydock::profiler
