#include "configurator/points.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "configurator/parallel.h"
#include "configurator/predict.h"
#include "configurator/recipes.h"
#include "configurator/space.h"
#include "core/error.h"
#include "core/text.h"

namespace drydock::configurator {
namespace {

using core::Csv;
using models::Parallelism;
using models::Role;

constexpr int64_t kMostWays = 1 << 16;
constexpr int64_t kMostTokens = 100'000'000;

class Row {
 public:
  Row(const Csv& csv, size_t row) : csv_(csv), row_(row) {}

  std::string text(std::string_view column) const {
    const auto at = csv_.find(column);
    return at ? csv_.cell(row_, *at) : "";
  }
  std::string need(std::string_view column) const {
    const std::string value = text(column);
    if (value.empty()) throw error(column, "is empty");
    return value;
  }
  int64_t integer(std::string_view column, int64_t otherwise, int64_t least, int64_t most) const {
    const auto at = csv_.find(column);
    return at ? csv_.integer(row_, *at, least, most).value_or(otherwise) : otherwise;
  }
  double number(std::string_view column, double otherwise, double least, double most) const {
    const auto at = csv_.find(column);
    return at ? csv_.number(row_, *at, least, most).value_or(otherwise) : otherwise;
  }
  core::Error error(std::string_view column, const std::string& what) const {
    return core::Error(csv_.origin() + ": line " + std::to_string(csv_.line(row_)) + ": column '" +
                       std::string(column) + "' " + what);
  }

 private:
  const Csv& csv_;
  size_t row_;
};

struct Instance {
  Parallelism parallelism;
  int replicas = 1;
};

// Sizes with the MoE's in balance: what is not given is expert parallel under attention DP, and expert TP without it.
Parallelism balanced(Parallelism p, bool moe) {
  const int ranks = p.tp * p.attention_dp;
  if (!moe) return {p.tp, p.pp, p.attention_dp, 1, 1};
  if (p.moe_tp * p.ep == ranks) return p;
  if (p.ep == ranks || (p.ep == 1 && p.moe_tp == 1 && p.attention_dp > 1))
    return {p.tp, p.pp, p.attention_dp, 1, ranks};
  return ranks % p.ep == 0 ? Parallelism{p.tp, p.pp, p.attention_dp, ranks / p.ep, p.ep}
                           : Parallelism{p.tp, p.pp, p.attention_dp, ranks, 1};
}

// What a row must mean when its sizes can't run as they stand. A TP that does not divide the heads is read as the
// largest one that does and divides it, replicated; so is attention DP of a dense model.
Instance reconcile(const models::Architecture& architecture, const models::Precision& precision, Parallelism p,
                   Readings& readings) {
  const bool moe = has_experts(architecture);
  const bool literal = p.tp == 1 && p.attention_dp <= 8;  // attention DP inside a node, experts over all its ranks
  if (moe && !literal && p.moe_tp == p.ep && p.ep > 1 && p.tp * p.attention_dp == p.ep * p.ep) {
    readings.insert("square_of_gpus");
    const int x = p.ep;
    p = p.attention_dp > 1 ? Parallelism{1, p.pp, x, 1, x} : Parallelism{x, p.pp, 1, 1, x};
  }
  if (moe && p.tp > 1 && p.tp == p.attention_dp && p.ep == p.tp * p.tp) {
    readings.insert("square_of_gpus");
    p = Parallelism{1, p.pp, p.tp, 1, p.tp};
  }
  // Engines give a rank of attention DP whole experts: rows that stand in both ways measured the same.
  if (moe && p.tp == 1 && p.attention_dp > 1 && p.moe_tp == p.attention_dp && p.ep == 1) {
    readings.insert("whole_experts");
    p = Parallelism{1, p.pp, p.attention_dp, 1, p.attention_dp};
  }
  const int asked = p.gpus();
  if (!moe) p.attention_dp = 1;
  for (int tp = p.tp; tp >= 1; --tp) {
    if (p.tp % tp != 0) continue;
    const Parallelism smaller{tp, p.pp, p.attention_dp, tp == p.tp ? p.moe_tp : 1, tp == p.tp ? p.ep : 1};
    for (const Parallelism& candidate :
         {balanced(smaller, moe), Parallelism{tp, p.pp, p.attention_dp, 1, moe ? tp * p.attention_dp : 1},
          Parallelism{tp, p.pp, p.attention_dp, moe ? tp * p.attention_dp : 1, 1}})
      if (!models::why_illegal(architecture, precision, candidate)) {
        if (tp != p.tp) readings.insert("smaller_tp");
        return {candidate, std::max(1, asked / candidate.gpus())};
      }
  }
  throw core::Error(*models::why_illegal(architecture, precision, balanced(p, moe)));
}

Parallelism sizes(const Row& row, const std::string& side) {
  const auto ways = [&](const char* column) {
    return static_cast<int>(std::max<int64_t>(1, row.integer(side + column, 1, 0, kMostWays)));
  };
  return {ways("tp_size"), ways("pp_size"), ways("attention_dp_size"), ways("moe_tp_size"), ways("moe_ep_size")};
}

// An engine that takes prompts whole needs a budget that holds the longest beside a full batch, and whoever ran the row
// gave it one: with less, prompts would wait for the batch to empty.
int64_t usual_budget(const Row& row, Role role, const simulator::BackendModel& backend) {
  if (backend.admission != simulator::Admission::mixed_whole) return backend.max_tokens;
  const int64_t beside = role == Role::prefill ? 0 : row.integer("concurrency", 0, 0, kMostTokens);
  return std::max(backend.max_tokens, row.integer("isl", 1, 1, kMostTokens) + beside);
}

models::Pool pool_of(const Row& row, Role role, const std::string& side, int64_t batch,
                     const models::Architecture& architecture, const models::Precision& precision,
                     const simulator::BackendModel& backend, const std::string& system, Readings& readings) {
  const Instance instance = reconcile(architecture, precision, sizes(row, side), readings);
  models::Pool pool;
  pool.role = role;
  pool.system = system;
  pool.parallelism = instance.parallelism;
  pool.replicas =
      instance.replicas * static_cast<int>(std::max<int64_t>(1, row.integer(side + "num_workers", 1, 0, kMostWays)));
  pool.max_batch = batch * instance.parallelism.attention_dp;  // batch sizes are those of one attention-DP rank
  pool.max_tokens = row.integer("max_num_tokens", 0, 0, kMostTokens);
  if (pool.max_tokens == 0) pool.max_tokens = usual_budget(row, role, backend);
  return pool;
}

std::string precision_of(const Row& row) {
  if (row.text("gemm_quant_mode") == "fp8_block") return "fp8_block";
  const std::string precision = row.text("precision");
  return precision.empty() ? "auto" : precision;
}

// The three pairs of lengths of the InferenceX benchmark.
bool is_inference_x(const models::Workload& w) {
  return (w.isl == 1024 && w.osl == 1024) || (w.isl == 1024 && w.osl == 8192) || (w.isl == 8192 && w.osl == 1024);
}

// Lengths in round decimal numbers, as AIPerf (genai-perf) runs have them.
bool is_decimal(const models::Workload& w) { return w.isl % 100 == 0 && w.osl % 50 == 0; }

// Or unnamed.
bool is_before_0_12(std::string_view vllm_version) {
  return vllm_version.empty() ||
         (vllm_version.starts_with("0.") && std::atoi(std::string(vllm_version.substr(2)).c_str()) < 12);
}

// How the client that measured the row behaved, which the columns don't say; given columns stand.
void set_client(models::Plan& plan, const Row& row, Readings& readings) {
  models::Workload& w = plan.workload;
  const bool vllm = plan.backend == models::Backend::vllm;
  double spread = 0, hit = 0;
  if (is_inference_x(w)) {
    spread = 0.2;
    readings.insert("lengths_from_80_percent");
  } else if (vllm && is_decimal(w)) {
    // Its default of 100 prompts, each sent again and again to an engine whose prefix cache is on.
    constexpr double kPrompts = 100, kSentPerUser = 10;
    spread = 0.2;
    hit = std::max(0.0, 1 - kPrompts / (kSentPerUser * w.concurrency.value_or(1)));
    readings.insert("lengths_from_80_percent");
    if (hit > 0) readings.insert("repeated_prompts");
  } else if (vllm) {
    constexpr double kDriftTokens = 14;  // by which answers of equal nominal lengths differ all the same
    spread = std::min(0.2, kDriftTokens / static_cast<double>(w.osl));
    readings.insert("drift_of_14_tokens");
  }
  w.shortest = 1 - row.number("length_spread", spread, 0, 0.95);
  w.longest = 1;
  w.burst = true;
  w.prefix_hit = row.number("prefix_hit", std::min(hit, 0.99), 0, 0.99);
  w.stream_interval = row.integer("stream_interval", 1, 1, 1 << 20);
  constexpr int64_t kConnections = 100;  // aiohttp's TCPConnector, unless told otherwise
  const bool few =
      vllm && is_inference_x(w) && w.concurrency.value_or(1) > kConnections && is_before_0_12(plan.backend_version);
  if (few) readings.insert("connections_of_100");
  w.connections = row.integer("connections", few ? kConnections : 0, 0, kMostTokens);
}

// TensorRT-LLM before 1.1 ran Qwen's published FP8 checkpoints, whose weights are scaled in blocks, with an fp8 KV
// cache and a budget of 2048 tokens.
bool is_old_fp8(const Row& row, models::Backend backend, const models::Architecture& architecture) {
  return backend == models::Backend::trtllm && row.text("backend_version").starts_with("1.0") &&
         row.text("precision") == "fp8" && architecture.model_type.starts_with("qwen3");
}

std::string provenance_of(const models::Plan& plan, Resources& resources) {
  std::array<double, core::kProvenances> sum{};
  double total = 0;
  for (const PoolDetail& pool : explain(plan, resources, Fit::assumed))
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += pool.provenance[i], total += pool.provenance[i];
  std::string out;
  for (size_t i = 0; i < sum.size(); ++i)
    if (const auto percent = std::lround(100 * sum[i] / total); percent > 0)
      out += (out.empty() ? "" : " ") + std::string(core::name(static_cast<core::Provenance>(i))) + "=" +
             std::to_string(percent) + "%";
  return out;
}

std::string shortest(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value, std::chars_format::fixed, 4).ptr};
}

}  // namespace

models::Plan plan_of(const Csv& points, size_t index, Resources& resources, Readings* told) {
  Readings unasked;
  Readings& readings = told ? *told : unasked;
  const Row row(points, index);
  models::Plan plan;
  plan.model = row.need("model");
  const auto backend = models::parse_backend(core::lower_case(row.need("backend")));
  if (!backend) throw row.error("backend", "is none of trtllm, vllm, sglang, drydock");
  plan.backend = *backend;
  plan.backend_version = row.text("backend_version");
  plan.precision = precision_of(row);
  if (const std::string kv = row.text("kv_precision"); !kv.empty()) plan.kv_precision = kv;
  const std::string system = row.need("system");
  const simulator::BackendModel& model = resources.backend(plan.backend);
  const models::Architecture& architecture = resources.model(plan.model);
  const bool old_fp8 = is_old_fp8(row, plan.backend, architecture);
  if (old_fp8) {
    plan.precision = "fp8_block";
    plan.kv_precision = "fp8";
    readings.insert("old_block_fp8");
  }
  const models::Precision precision = models::choose_precision(architecture, plan.precision);
  resources.system(system);  // throws here when it is not known
  plan.workload.isl = row.integer("isl", 0, 1, kMostTokens);
  plan.workload.osl = row.integer("osl", 0, 1, kMostTokens);
  if (plan.workload.isl == 0) throw row.error("isl", "is empty");
  if (plan.workload.osl == 0) throw row.error("osl", "is empty");
  const std::string mode = row.need("mode");
  const int64_t concurrency = row.integer("concurrency", 0, 0, kMostTokens);
  if (concurrency > 0) plan.workload.concurrency = static_cast<double>(concurrency);
  set_client(plan, row, readings);
  if (mode == "agg") {
    plan.mode = models::Mode::agg;
    const int64_t most = row.integer("max_batch", kMostTokens, 1, kMostTokens);
    plan.pools = {pool_of(row, Role::worker, "", most, architecture, precision, model, system, readings)};
    const int64_t in_flight = concurrency > 0 ? concurrency : row.integer("batch_size", 0, 0, kMostTokens);
    if (in_flight == 0) throw row.error("concurrency", "is empty, and so is batch_size");
    plan.workload.concurrency = static_cast<double>(in_flight);
    // A concurrency of several times the batch of an instance is that of as many instances.
    const int64_t batch = row.integer("batch_size", 0, 0, kMostTokens) *
                          std::max<int64_t>(1, row.integer("attention_dp_size", 1, 0, kMostWays));
    if (batch > 0) {
      const auto instances = static_cast<int>(
          std::clamp<int64_t>(std::llround(static_cast<double>(in_flight) / static_cast<double>(batch)), 1, kMostWays));
      if (instances > 1) readings.insert("several_instances");
      plan.pools.front().replicas *= instances;
    }
    if (is_inference_x(plan.workload))
      follow_recipe(plan, architecture, resources.system(system).hardware.architecture == "blackwell", readings);
    if (old_fp8 && row.text("max_num_tokens").empty())
      plan.pools.front().max_tokens = std::max<int64_t>(2048, plan.workload.isl + in_flight);
  } else if (mode == "disagg") {
    plan.mode = models::Mode::disagg;
    const auto batch = [&](const char* column) { return std::max<int64_t>(1, row.integer(column, 1, 0, kMostTokens)); };
    plan.pools = {pool_of(row, Role::prefill, "prefill_", batch("prefill_batch_size"), architecture, precision, model,
                          system, readings),
                  pool_of(row, Role::decode, "decode_", batch("decode_batch_size"), architecture, precision, model,
                          system, readings)};
  } else {
    throw row.error("mode", "is neither agg nor disagg");
  }
  return plan;
}

std::vector<PointPrediction> predict_points(const Csv& points, Resources& resources, Method method) {
  points.require({"mode", "model", "system", "backend", "isl", "osl"});
  std::vector<PointPrediction> out(points.rows());
  in_parallel(points.rows(), [&](size_t i) {
    try {
      const models::Plan plan = plan_of(points, i, resources, &out[i].readings);
      out[i].prediction = predict(plan, resources, Fit::assumed, method);
      if (!out[i].prediction) out[i].error = "the rate is more than the plan can serve";
      out[i].provenance = provenance_of(plan, resources);
    } catch (const core::Error& error) {
      out[i].error = error.what();
    }
  });
  return out;
}

std::string predictions_csv(const Csv& points, const std::vector<PointPrediction>& predictions) {
  std::string out;
  for (const std::string& column : points.columns()) out += core::csv_field(column) + ",";
  out +=
      "predicted_ttft_ms,predicted_tpot_ms,predicted_ttft_low_ms,predicted_ttft_high_ms,predicted_tpot_low_ms,"
      "predicted_tpot_high_ms,provenance,error\n";
  for (size_t i = 0; i < points.rows(); ++i) {
    for (size_t c = 0; c < points.columns().size(); ++c) out += core::csv_field(points.cell(i, c)) + ",";
    const PointPrediction& p = predictions[i];
    if (p.prediction) {
      const core::Figure &a = p.prediction->ttft_ms, &b = p.prediction->tpot_ms;
      for (const double value : {a.value, b.value, a.low, a.high, b.low, b.high}) out += shortest(value) + ",";
    } else {
      out += ",,,,,,";
    }
    out += core::csv_field(p.provenance) + "," + core::csv_field(p.error) + "\n";
  }
  return out;
}

}  // namespace drydock::configurator
