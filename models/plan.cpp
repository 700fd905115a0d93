#include "models/plan.h"

#include <array>
#include <cassert>

#include "core/file.h"
#include "core/json.h"

namespace drydock::models {
namespace {

using core::Fields;
using core::Figure;
using core::Json;

constexpr std::array<std::string_view, kBackends> kBackendNames = {"trtllm", "vllm", "sglang", "drydock"};
constexpr std::array<std::string_view, 2> kModeNames = {"agg", "disagg"};
constexpr std::array<std::string_view, 3> kRoleNames = {"worker", "prefill", "decode"};
constexpr int64_t kMostTokens = 1'000'000'000, kMostWays = 1 << 16;
constexpr double kMostMs = 1e9;

template <size_t N>
std::optional<size_t> index_of(const std::array<std::string_view, N>& names, std::string_view text) {
  for (size_t i = 0; i < N; ++i)
    if (names[i] == text) return i;
  return std::nullopt;
}

Json figure_json(const Figure& f) { return {{"value", f.value}, {"low", f.low}, {"high", f.high}}; }

Figure parse_figure(const Fields& parent, std::string_view field) {
  const Fields f = parent.object(field);
  f.only({"value", "low", "high"});
  constexpr double kMost = 1e15;
  return {f.number("value", 0, kMost), f.number("low", 0, kMost), f.number("high", 0, kMost)};
}

Json waits_json(const PromptWaits& w) {
  return {{"steps", w.steps},
          {"share", w.share},
          {"poll", w.poll},
          {"balance", w.balance},
          {"balance_batching", w.balance_batching}};
}

PromptWaits parse_waits(const Fields& f) {
  f.only({"steps", "share", "poll", "balance", "balance_batching"});
  constexpr int64_t kMostSteps = 1'000'000;
  return {f.integer_or("steps", 0, 0, kMostSteps), f.number_or("share", 1, 0, 1),
          f.integer_or("poll", 1, 1, kMostSteps), f.integer_or("balance", 0, 0, kMostSteps),
          f.integer_or("balance_batching", 0, 0, kMostSteps)};
}

Json pool_json(const Pool& pool) {
  const Parallelism& p = pool.parallelism;
  Json json = {{"role", name(pool.role)},
               {"system", pool.system},
               {"replicas", pool.replicas},
               {"tp", p.tp},
               {"pp", p.pp},
               {"attention_dp", p.attention_dp},
               {"moe_tp", p.moe_tp},
               {"ep", p.ep},
               {"max_batch", pool.max_batch},
               {"max_tokens", pool.max_tokens},
               {"kv_blocks", pool.kv_blocks}};
  if (pool.two_batch_overlap) json["two_batch_overlap"] = true;
  if (pool.shared_expert_overlap) json["shared_expert_overlap"] = true;
  if (pool.waits != PromptWaits{}) json["waits"] = waits_json(pool.waits);
  return json;
}

Pool parse_pool(const Fields& f) {
  f.only({"role", "system", "replicas", "tp", "pp", "attention_dp", "moe_tp", "ep", "max_batch", "max_tokens",
          "kv_blocks", "two_batch_overlap", "shared_expert_overlap", "waits"});
  const auto ways = [&](std::string_view field) { return static_cast<int>(f.integer_or(field, 1, 1, kMostWays)); };
  Pool pool;
  const auto role = index_of(kRoleNames, f.text("role"));
  if (!role) throw f.error("role", "want worker, prefill or decode");
  pool.role = static_cast<Role>(*role);
  pool.system = f.text("system");
  pool.replicas = ways("replicas");
  pool.parallelism = {ways("tp"), ways("pp"), ways("attention_dp"), ways("moe_tp"), ways("ep")};
  const double gpus = 1.0 * pool.replicas * pool.parallelism.tp * pool.parallelism.pp * pool.parallelism.attention_dp;
  if (gpus > kMostWays) throw f.error("replicas", "replicas x tp x pp x attention_dp must be at most 65536 GPUs");
  pool.max_batch = f.integer("max_batch", 1, kMostTokens);
  pool.max_tokens = f.integer("max_tokens", 1, kMostTokens);
  pool.kv_blocks = f.integer_or("kv_blocks", 0, 0, kMostTokens);
  pool.two_batch_overlap = f.boolean_or("two_batch_overlap", false);
  pool.shared_expert_overlap = f.boolean_or("shared_expert_overlap", false);
  if (f.has("waits")) pool.waits = parse_waits(f.object("waits"));
  return pool;
}

template <typename T>
void put(Json& json, const char* field, const std::optional<T>& value) {
  if (value) json[field] = *value;
}

Json experts_json(const Experts& e) {
  Json json = Json::object();
  put(json, "skew", e.skew);
  if (!e.histogram.empty()) json["histogram"] = e.histogram;
  if (e.slots > 0) json["slots"] = e.slots;
  return json;
}

Experts parse_experts(const Fields& f) {
  f.only({"skew", "histogram", "slots"});
  Experts e;
  e.skew = f.optional_number("skew", 0, 10);
  if (f.has("histogram")) e.histogram = f.text("histogram");
  if (e.skew.has_value() == !e.histogram.empty()) throw f.error("skew", "give either skew or histogram");
  e.slots = static_cast<int>(f.integer_or("slots", 0, 0, kMostExpertSlots));
  return e;
}

Json workload_json(const Workload& w) {
  Json json = {{"isl", w.isl},
               {"osl", w.osl},
               {"shortest", w.shortest},
               {"longest", w.longest},
               {"stream_interval", w.stream_interval},
               {"prefix_hit", w.prefix_hit}};
  put(json, "rate", w.rate);
  put(json, "concurrency", w.concurrency);
  if (w.connections > 0) json["connections"] = w.connections;
  if (w.burst) json["burst"] = true;
  return json;
}

Workload parse_workload(const Fields& f) {
  f.only({"isl", "osl", "shortest", "longest", "stream_interval", "prefix_hit", "rate", "concurrency", "connections",
          "burst"});
  Workload w;
  w.isl = f.integer("isl", 1, kMostTokens);
  w.osl = f.integer("osl", 1, kMostTokens);
  w.shortest = f.number_or("shortest", w.shortest, 0.01, 1);
  w.longest = f.number_or("longest", w.longest, 1, 100);
  w.stream_interval = f.integer_or("stream_interval", 1, 1, 1 << 20);
  w.prefix_hit = f.number_or("prefix_hit", 0, 0, 0.999999);
  w.rate = f.optional_number("rate", 1e-6, 1e9);
  w.concurrency = f.optional_number("concurrency", 1e-6, 1e9);
  w.connections = f.integer_or("connections", 0, 0, kMostTokens);
  w.burst = f.boolean_or("burst", false);
  if (w.rate && w.concurrency) throw f.error("rate", "give rate or concurrency, not both");
  return w;
}

Json slo_json(const Slo& slo) {
  Json json = Json::object();
  put(json, "ttft_ms", slo.ttft_ms);
  put(json, "tpot_ms", slo.tpot_ms);
  put(json, "request_latency_ms", slo.request_latency_ms);
  put(json, "percentile", slo.percentile);
  return json;
}

Slo parse_slo(const Fields& f) {
  f.only({"ttft_ms", "tpot_ms", "request_latency_ms", "percentile"});
  return {f.optional_number("ttft_ms", 1e-3, kMostMs), f.optional_number("tpot_ms", 1e-3, kMostMs),
          f.optional_number("request_latency_ms", 1e-3, kMostMs), f.optional_number("percentile", 50, 99.9)};
}

Json tail_json(const Prediction::Tail& t) {
  return {{"percentile", t.percentile},
          {"ttft_ms", figure_json(t.ttft_ms)},
          {"tpot_ms", figure_json(t.tpot_ms)},
          {"request_latency_ms", figure_json(t.request_latency_ms)}};
}

Json prediction_json(const Prediction& p) {
  Json json = {{"ttft_ms", figure_json(p.ttft_ms)},
               {"tpot_ms", figure_json(p.tpot_ms)},
               {"request_latency_ms", figure_json(p.request_latency_ms)},
               {"tokens_per_s_per_gpu", figure_json(p.tokens_per_s_per_gpu)},
               {"tokens_per_s_per_user", figure_json(p.tokens_per_s_per_user)},
               {"requests_per_s", figure_json(p.requests_per_s)},
               {"gpu_hours_per_million_tokens", figure_json(p.gpu_hours_per_million_tokens)}};
  if (p.cost_per_million_tokens) json["cost_per_million_tokens"] = figure_json(*p.cost_per_million_tokens);
  if (p.tail) json["tail"] = tail_json(*p.tail);
  return json;
}

Prediction::Tail parse_tail(const Fields& f) {
  f.only({"percentile", "ttft_ms", "tpot_ms", "request_latency_ms"});
  return {f.number("percentile", 50, 99.9), parse_figure(f, "ttft_ms"), parse_figure(f, "tpot_ms"),
          parse_figure(f, "request_latency_ms")};
}

Prediction parse_prediction(const Fields& f) {
  f.only({"ttft_ms", "tpot_ms", "request_latency_ms", "tokens_per_s_per_gpu", "tokens_per_s_per_user", "requests_per_s",
          "gpu_hours_per_million_tokens", "cost_per_million_tokens", "tail"});
  Prediction p;
  p.ttft_ms = parse_figure(f, "ttft_ms");
  p.tpot_ms = parse_figure(f, "tpot_ms");
  p.request_latency_ms = parse_figure(f, "request_latency_ms");
  p.tokens_per_s_per_gpu = parse_figure(f, "tokens_per_s_per_gpu");
  p.tokens_per_s_per_user = parse_figure(f, "tokens_per_s_per_user");
  p.requests_per_s = parse_figure(f, "requests_per_s");
  p.gpu_hours_per_million_tokens = parse_figure(f, "gpu_hours_per_million_tokens");
  if (f.has("cost_per_million_tokens")) p.cost_per_million_tokens = parse_figure(f, "cost_per_million_tokens");
  if (f.has("tail")) p.tail = parse_tail(f.object("tail"));
  return p;
}

// agg has one worker pool, disagg a prefill and a decode pool, in this order.
void check_roles(const Fields& f, const Plan& plan) {
  const bool fits = plan.mode == Mode::agg ? plan.pools.size() == 1 && plan.pools[0].role == Role::worker
                                           : plan.pools.size() == 2 && plan.pools[0].role == Role::prefill &&
                                                 plan.pools[1].role == Role::decode;
  if (!fits)
    throw f.error("pools", "want one pool of role worker in mode agg, pools prefill and decode in mode disagg");
}

}  // namespace

std::string_view name(Backend backend) { return kBackendNames[static_cast<size_t>(backend)]; }
std::string_view name(Mode mode) { return kModeNames[static_cast<size_t>(mode)]; }
std::string_view name(Role role) { return kRoleNames[static_cast<size_t>(role)]; }

std::optional<Backend> parse_backend(std::string_view text) {
  const auto index = index_of(kBackendNames, text);
  return index ? std::optional(static_cast<Backend>(*index)) : std::nullopt;
}

int Plan::gpus() const {
  int total = 0;
  for (const Pool& pool : pools) total += pool.gpus();
  return total;
}

const Pool& Plan::pool(Role role) const {
  for (const Pool& pool : pools)
    if (pool.role == role) return pool;
  assert(false);
  return pools.front();
}

std::string to_json(const Plan& plan) {
  Json pools = Json::array();
  for (const Pool& pool : plan.pools) pools.push_back(pool_json(pool));
  Json json = {{"schema", "drydock.plan"},
               {"version", kPlanVersion},
               {"model", plan.model},
               {"precision", plan.precision},
               {"kv_precision", plan.kv_precision},
               {"backend", name(plan.backend)},
               {"backend_version", plan.backend_version},
               {"mode", name(plan.mode)},
               {"gpus", plan.gpus()},
               {"pools", pools},
               {"router_policy", plan.router_policy},
               {"workload", workload_json(plan.workload)},
               {"slo", slo_json(plan.slo)}};
  if (!plan.speculative.empty()) json["speculative"] = plan.speculative;
  if (plan.experts.uneven()) json["experts"] = experts_json(plan.experts);
  if (plan.prediction) json["prediction"] = prediction_json(*plan.prediction);
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Plan parse_plan(std::string_view text, std::string_view origin) {
  const Json json = core::parse_json(text, origin);
  const Fields f(json, std::string(origin));
  if (f.text("schema") != "drydock.plan") throw f.error("schema", "want 'drydock.plan'");
  if (f.integer("version", 1, 1'000'000) > kPlanVersion)
    throw f.error("version", "is newer than this program, which reads " + std::to_string(kPlanVersion) +
                                 "; use the drydock that wrote it, or plan again");
  f.only({"schema", "version", "model", "precision", "kv_precision", "backend", "backend_version", "mode", "gpus",
          "pools", "router_policy", "speculative", "experts", "workload", "slo", "prediction"});
  Plan plan;
  plan.model = f.text("model");
  plan.precision = f.text_or("precision", "auto");
  plan.kv_precision = f.text_or("kv_precision", "auto");
  const auto backend = parse_backend(f.text("backend"));
  if (!backend) throw f.error("backend", "want trtllm, vllm, sglang or drydock");
  plan.backend = *backend;
  plan.backend_version = f.text_or("backend_version", "");
  const auto mode = index_of(kModeNames, f.text("mode"));
  if (!mode) throw f.error("mode", "want agg or disagg");
  plan.mode = static_cast<Mode>(*mode);
  const Json& pools = f.array("pools");
  if (pools.size() > 16) throw f.error("pools", "over 16 pools");
  for (size_t i = 0; i < pools.size(); ++i)
    plan.pools.push_back(parse_pool(Fields(pools[i], f.origin(), "pools[" + std::to_string(i) + "]")));
  check_roles(f, plan);
  plan.router_policy = f.text_or("router_policy", plan.router_policy);
  plan.speculative = f.text_or("speculative", "");
  if (f.has("experts")) plan.experts = parse_experts(f.object("experts"));
  plan.workload = parse_workload(f.object("workload"));
  if (f.has("slo")) plan.slo = parse_slo(f.object("slo"));
  if (f.has("prediction")) plan.prediction = parse_prediction(f.object("prediction"));
  return plan;
}

Plan read_plan(const std::filesystem::path& file) {
  return parse_plan(core::read_file(file, core::kMaxJsonBytes), file.string());
}

}  // namespace drydock::models
