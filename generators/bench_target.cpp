#include "generators/bench_target.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "generators/bench_script.h"
#include "generators/engine_figures.h"
#include "generators/flags.h"
#include "generators/launch_scripts.h"
#include "generators/text.h"

namespace drydock::generators {
namespace {

using core::Json;
using models::Role;

// Shares to six digits: no more is meant, and no client prints its arithmetic.
double short_share(double share) { return std::round(share * 1e6) / 1e6; }

int64_t whole_number(double value) { return std::max<int64_t>(1, std::llround(value)); }

// Uniform lengths as the clients draw them.
struct BenchLengths {
  int64_t input, output;  // middle of the range, or its upper end
  double ratio;
};
// vLLM and TensorRT-LLM: [L (1 - r), L (1 + r)].
BenchLengths around_middle(const models::Workload& w) {
  const double middle = (w.shortest + w.longest) / 2;
  return {whole_number(static_cast<double>(w.isl) * middle), whole_number(static_cast<double>(w.osl) * middle),
          short_share((w.longest - w.shortest) / (w.longest + w.shortest))};
}
// SGLang: [r L, L].
BenchLengths below_longest(const models::Workload& w) {
  return {whole_number(static_cast<double>(w.isl) * w.longest), whole_number(static_cast<double>(w.osl) * w.longest),
          short_share(w.shortest / w.longest)};
}

// The closed loop that is run: the plan's, or as many as its decoding instances hold; nullopt: a rate.
std::optional<int64_t> in_flight(const models::Plan& plan) {
  if (plan.workload.concurrency) return whole_number(*plan.workload.concurrency);
  if (plan.workload.rate) return std::nullopt;
  const models::Pool& pool = plan.pools.back();
  return std::max<int64_t>(1, pool.max_batch * pool.replicas);
}

struct BenchLoad {
  int64_t prompts, warmups;
};
// Ten times the requests in flight after two times as many to warm up, as the InferenceX client has it; of a rate, five
// minutes, which at 200 requests and more makes p95 worth reading.
BenchLoad load_of(const models::Plan& plan) {
  if (const auto users = in_flight(plan)) return {10 * *users, 2 * *users};
  return {std::clamp<int64_t>(whole_number(*plan.workload.rate * 300), 200, 100000), 16};
}

void add_rate(const models::Plan& plan, Flags& flags) {
  flags.push_back({"--num-prompts", load_of(plan).prompts});
  if (const auto users = in_flight(plan))
    flags.push_back({"--max-concurrency", *users});
  else
    flags.push_back({"--request-rate", *plan.workload.rate});
}

// Of the prompt, what all requests share.
int64_t shared_tokens(const BenchLengths& lengths, const models::Workload& w) {
  return std::min(lengths.input - 1, static_cast<int64_t>(static_cast<double>(lengths.input) * w.prefix_hit + 0.5));
}

Flags random_flags(const models::Workload& w, const BenchLengths& lengths) {
  const int64_t shared = shared_tokens(lengths, w);
  Flags flags = {{"--dataset-name", "random"},
                 {"--random-input-len", lengths.input - shared},
                 {"--random-output-len", lengths.output},
                 {"--random-range-ratio", lengths.ratio}};
  if (shared > 0) flags.push_back({"--random-prefix-len", shared});
  return flags;
}

Flags client_flags(const Request& request) {
  return {{"--model", model_path(request)}, {"--served-model-name", served_name(request)}};
}

void append_flags(Flags& to, Flags from) { std::move(from.begin(), from.end(), std::back_inserter(to)); }

// TensorRT-LLM's client is descended from vLLM's.
Flags result_flags() {
  return {{"--ignore-eos"},
          {"--seed", 1},
          {"--percentile-metrics", "ttft,tpot,itl,e2el"},
          {"--metric-percentiles", "50,90,95,99"},
          {"--save-result"},
          {"--result-filename", "RESULT", true}};
}

std::string vllm_bench(const Request& request) {
  Flags flags = {{"--backend", "openai"}, {"--base-url", "BASE_URL", true}};
  append_flags(flags, client_flags(request));
  append_flags(flags, random_flags(request.plan.workload, around_middle(request.plan.workload)));
  add_rate(request.plan, flags);
  flags.push_back({"--num-warmups", load_of(request.plan).warmups});
  append_flags(flags, result_flags());
  return command_text("vllm bench serve", flags);
}

std::string trtllm_bench(const Request& request) {
  Flags flags = {{"--backend", "openai"}, {"--base-url", "BASE_URL", true}};
  append_flags(flags, client_flags(request));
  append_flags(flags, random_flags(request.plan.workload, around_middle(request.plan.workload)));
  flags.push_back({"--random-ids"});
  add_rate(request.plan, flags);
  append_flags(flags, result_flags());
  return command_text("python3 -m tensorrt_llm.serve.scripts.benchmark_serving", flags);
}

std::string sglang_bench(const Request& request) {
  const models::Workload& w = request.plan.workload;
  const BenchLengths lengths = below_longest(w);
  const int64_t shared = shared_tokens(lengths, w);
  Flags flags = {{"--backend", "sglang-oai"}, {"--base-url", "BASE_URL", true}};
  append_flags(flags, client_flags(request));
  if (shared > 0)
    append_flags(flags, {{"--dataset-name", "generated-shared-prefix"},
                         {"--gsp-num-groups", 1},
                         {"--gsp-prompts-per-group", load_of(request.plan).prompts},
                         {"--gsp-system-prompt-len", shared},
                         {"--gsp-question-len", lengths.input - shared},
                         {"--gsp-output-len", lengths.output}});
  else
    append_flags(flags, {{"--dataset-name", "random-ids"},
                         {"--random-input-len", lengths.input},
                         {"--random-output-len", lengths.output},
                         {"--random-range-ratio", lengths.ratio}});
  add_rate(request.plan, flags);
  append_flags(
      flags, {{"--warmup-requests", load_of(request.plan).warmups}, {"--seed", 1}, {"--output-file", "RESULT", true}});
  return command_text("python3 -m sglang.bench_serving", flags);
}

std::string bench_command(const Request& request) {
  switch (request.plan.backend) {
    case models::Backend::trtllm:
      return trtllm_bench(request);
    case models::Backend::sglang:
      return sglang_bench(request);
    default:  // vLLM's client speaks to any OpenAI-compatible server, the bundled runtime included
      return vllm_bench(request);
  }
}

void add_size_columns(const models::Pool& pool, const std::string& side, Json& columns) {
  const models::Parallelism& p = pool.parallelism;
  columns[side + "tp_size"] = p.tp;
  columns[side + "pp_size"] = p.pp;
  columns[side + "attention_dp_size"] = p.attention_dp;
  columns[side + "moe_tp_size"] = p.moe_tp;
  columns[side + "moe_ep_size"] = p.ep;
  if (side.empty()) return;
  columns[side + "batch_size"] = std::max<int64_t>(1, pool.max_batch / p.attention_dp);
  columns[side + "num_workers"] = pool.replicas;
}

// Points state lengths by the longest and a spread below it.
Json deployment_json(const Request& request) {
  const models::Plan& plan = request.plan;
  const models::Workload& w = plan.workload;
  const BenchLengths lengths = below_longest(w);
  Json columns = {{"mode", models::name(plan.mode)},
                  {"model", plan.model},
                  {"system", plan.pools.front().system},
                  {"backend", models::name(plan.backend)},
                  {"backend_version", request.set("engine-version", plan.backend_version)},
                  {"precision", plan.precision == "auto" ? "" : plan.precision},
                  {"isl", lengths.input},
                  {"osl", lengths.output},
                  {"length_spread", short_share(std::min(0.95, 1 - lengths.ratio))},
                  {"prefix_hit", std::min(0.99, w.prefix_hit)},
                  {"stream_interval", w.stream_interval},
                  {"max_num_tokens", plan.pools.front().max_tokens}};
  for (const models::Pool& pool : plan.pools)
    add_size_columns(pool,
                     pool.role == Role::prefill  ? "prefill_"
                     : pool.role == Role::decode ? "decode_"
                                                 : "",
                     columns);
  const auto users = in_flight(plan);
  return {{"schema", "drydock.bench"},
          {"version", 1},
          {"plan", plan_hash(plan)},
          {"concurrency", users ? Json(*users) : Json(nullptr)},
          {"replicas", plan.pools.back().replicas},
          {"columns", columns}};
}

std::vector<OutputFile> bench_files(const Request& request) {
  const models::Plan& plan = request.plan;
  if (plan.pools.front().system != plan.pools.back().system)
    throw core::Error("target bench: prefill runs on " + plan.pools.front().system + " and decode on " +
                      plan.pools.back().system + "; a row of points has one system");
  const std::string url = "BASE_URL=${BASE_URL:-http://127.0.0.1:" + std::to_string(kRouterPort) +
                          "}\nRESULT=${RESULT:-$PWD/result.json}\n\n";
  return {{"bench/bench.sh",
           script_head(request, {"The load that was simulated, by the engine's own client.",
                                 "usage: BASE_URL=http://host:" + std::to_string(kRouterPort) +
                                     " ./bench.sh, then ./compare.sh"}) +
               url + bench_command(request),
           "the load test; writes result.json", true},
          {"bench/compare.sh",
           script_head(request, {"How far the measurement is from the prediction."}) +
               "python3 to_csv.py \"${RESULT:-result.json}\" > measured.csv\nexec \"${DRYDOCK:-drydock}\" validate "
               "--points measured.csv \"$@\"\n",
           "turns result.json into measured.csv and runs drydock validate", true},
          {"bench/to_csv.py", header(request, "# ") + std::string(kToCsv),
           "result of the benchmark to the CSV of drydock validate; Python's standard library"},
          {"bench/deployment.json", json_text(deployment_json(request)), "the plan's columns of that CSV"}};
}

constexpr std::array<Setting, 3> kBenchSettings = {{
    {"model-path", "checkpoint whose tokenizer makes the prompts", "the plan's model"},
    {"served-name", "model name that the server knows", "the checkpoint's"},
    {"engine-version", "release of the engine, for the CSV", "the plan's"},
}};

}  // namespace

const Target kBench = {"bench",
                       "the load test that confirms the prediction, and its result as CSV for drydock validate",
                       kBenchSettings, bench_files};

}  // namespace drydock::generators
