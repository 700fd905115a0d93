// What one candidate and a whole search cost, once the data is loaded.
#include <benchmark/benchmark.h>

#include "configurator/predict.h"
#include "configurator/search.h"

using namespace drydock;

namespace {

configurator::Resources& resources() {
  static configurator::Resources shared;
  return shared;
}

// The question of scripts/quickstart.
configurator::Question quickstart() {
  configurator::Question q;
  q.model = "Qwen/Qwen3-32B";
  q.precision = "fp8";
  q.system = "h200_sxm";
  q.gpus = 16;
  q.backend = models::Backend::trtllm;
  q.workload.isl = 4000;
  q.workload.osl = 1000;
  q.slo.ttft_ms = 1000;
  q.slo.tpot_ms = 20;
  return q;
}

configurator::Question deepseek_on_64() {
  configurator::Question q;
  q.model = "deepseek-ai/DeepSeek-R1";
  q.precision = "nvfp4";
  q.system = "gb200";
  q.gpus = 64;
  q.backend = models::Backend::trtllm;
  q.mode = configurator::ModeChoice::disagg;
  q.workload.isl = 4000;
  q.workload.osl = 1000;
  q.slo.ttft_ms = 2000;
  q.slo.tpot_ms = 30;
  return q;
}

void one_candidate(benchmark::State& state, configurator::ModeChoice mode) {
  configurator::Question q = quickstart();
  q.mode = mode;
  q.slo = {};
  const models::Plan plan = configurator::recommend(q, resources()).plans.at(0).plan;
  for (auto _ : state) benchmark::DoNotOptimize(configurator::predict(plan, resources()));
}
BENCHMARK_CAPTURE(one_candidate, agg, configurator::ModeChoice::agg)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(one_candidate, disagg, configurator::ModeChoice::disagg)->Unit(benchmark::kMicrosecond);

// Real time: the search uses all cores.
void recommend(benchmark::State& state, const configurator::Question& question) {
  configurator::Answer answer = configurator::recommend(question, resources());
  for (auto _ : state) answer = configurator::recommend(question, resources());
  state.counters["priced"] = static_cast<double>(answer.counts.priced);
  state.counters["meeting_slo"] = static_cast<double>(answer.counts.meeting_slo);
}
configurator::Question with(configurator::Question q, bool prune, configurator::Method method) {
  q.prune = prune;
  q.method = method;
  q.slo.percentile = method == configurator::Method::simulate ? std::optional(95.0) : std::nullopt;
  return q;
}
using configurator::Method;
BENCHMARK_CAPTURE(recommend, quickstart_p95, with(quickstart(), true, Method::simulate))
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(recommend, quickstart_p95_all, with(quickstart(), false, Method::simulate))
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(recommend, quickstart_analytic, with(quickstart(), true, Method::analytic))
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(recommend, deepseek_r1_64_gb200, deepseek_on_64())->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
