// Simulated requests and tokens per second of one core, on Llama-3.1-70B in fp8 over eight H200s by the vLLM rules.
#include <benchmark/benchmark.h>

#include "configurator/predict.h"
#include "configurator/search.h"

using namespace drydock;

namespace {

configurator::Resources& resources() {
  static configurator::Resources shared;
  return shared;
}

models::Plan plan(double shortest) {
  models::Plan p;
  p.model = "meta-llama/Llama-3.1-70B";
  p.precision = "fp8";
  p.backend = models::Backend::vllm;
  models::Pool pool;
  pool.role = models::Role::worker;
  pool.system = "h200_sxm";
  pool.parallelism = {8, 1, 1, 1, 1};
  pool.max_batch = 512;
  pool.max_tokens = 8192;
  p.pools = {pool};
  p.workload.isl = 1000;
  p.workload.osl = 1000;
  p.workload.shortest = shortest;
  p.workload.longest = 1;
  return p;
}

void run(benchmark::State& state, const models::Plan& p, int64_t requests) {
  const configurator::Instances instances = configurator::instances_of(p, resources());
  simulator::LoadOptions options;
  options.requests = requests;
  double tokens = 0;
  for (auto _ : state) {
    const auto load = simulator::load_of(p.workload, 1000, options);
    simulator::Recorder recorder({});
    benchmark::DoNotOptimize(simulator::simulate(instances.deployment, p.workload, {}, *load, recorder));
    tokens += recorder.output_tokens();
  }
  state.counters["tokens/s"] = benchmark::Counter(tokens, benchmark::Counter::kIsRate);
}

// 64 in flight, 1,000 in and 1,000 out: of equal lengths, and uniform in [0.8, 1] of them.
void closed_loop(benchmark::State& state) {
  models::Plan p = plan(state.range(0) == 0 ? 1 : 0.8);
  p.workload.concurrency = 64;
  run(state, p, 2000);
}
BENCHMARK(closed_loop)->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

// 2,000 in and 500 out, Poisson at 5/s.
void open_loop(benchmark::State& state) {
  models::Plan p = plan(1);
  p.workload.isl = 2000;
  p.workload.osl = 500;
  p.workload.rate = 5;
  run(state, p, state.range(0));
}
BENCHMARK(open_loop)->Arg(10'000)->Arg(100'000)->Arg(1'000'000)->Unit(benchmark::kMillisecond);

}  // namespace
