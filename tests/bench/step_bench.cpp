// What one step costs to price: lowering, kernel-time lookup, both together.
#include <benchmark/benchmark.h>

#include "configurator/predict.h"
#include "configurator/resources.h"
#include "simulator/step_time.h"

using namespace drydock;

namespace {

constexpr models::Backend kBackend = models::Backend::trtllm;
constexpr const char* kSystem = "h200_sxm";

struct Case {
  const char* model;
  const char* precision;
  models::Parallelism parallelism;
};
// Dense, and MoE with MLA: the shortest and about the longest op list.
constexpr Case kCases[] = {{"Qwen/Qwen3-32B", "fp8", {4, 1, 1, 1, 1}},
                           {"deepseek-ai/DeepSeek-R1", "auto", {8, 1, 1, 1, 8}}};

configurator::Resources& resources() {
  static configurator::Resources shared;
  return shared;
}

models::Precision precision_of(const Case& c) {
  return configurator::deployed_precision(resources().model(c.model), c.precision, "auto", kBackend,
                                          resources().system(kSystem).hardware);
}

models::BatchPart decode_of(double sequences) {
  models::BatchPart part;
  part.sequences = sequences;
  part.new_tokens = 1;
  part.context = 4500;
  part.is_decode = true;
  return part;
}

void lowering(benchmark::State& state) {
  const Case& c = kCases[state.range(0)];
  const models::Lowering lowering(resources().model(c.model), precision_of(c), c.parallelism);
  const models::BatchPart part = decode_of(32);
  std::vector<models::LayerOp> ops;
  for (auto _ : state) {
    lowering.lower({&part, 1}, 0, ops);
    benchmark::DoNotOptimize(ops.data());
  }
  state.SetLabel(c.model);
  state.counters["ops"] = static_cast<double>(ops.size());
}
BENCHMARK(lowering)->Arg(0)->Arg(1);

void lookup(benchmark::State& state) {
  const Case& c = kCases[state.range(0)];
  const perfdb::KernelTimes& times = resources().times(kSystem, kBackend);
  const models::Lowering lowering(resources().model(c.model), precision_of(c), c.parallelism);
  const models::BatchPart part = decode_of(32);
  std::vector<models::LayerOp> ops;
  lowering.lower({&part, 1}, 0, ops);
  size_t next = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(times.of(ops[next].op));
    next = next + 1 == ops.size() ? 0 : next + 1;
  }
  state.SetLabel(c.model);
}
BENCHMARK(lookup)->Arg(0)->Arg(1);

void step_price(benchmark::State& state) {
  const Case& c = kCases[state.range(0)];
  const simulator::StepTimer timer(resources().model(c.model), precision_of(c), c.parallelism,
                                   resources().times(kSystem, kBackend), resources().backend(kBackend));
  const models::BatchPart part = decode_of(32);
  simulator::StepTimer::Scratch scratch;
  for (auto _ : state) benchmark::DoNotOptimize(timer.stage({&part, 1}, 0, scratch).us);
  state.SetLabel(c.model);
}
BENCHMARK(step_price)->Arg(0)->Arg(1);

}  // namespace
