// Steps of the CPU engine on a Qwen3-shaped model of 158 M made-up weights, and the machine's own pace of reading them.
#include <benchmark/benchmark.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/cpu.h"
#include "runtime/cpu_engine.h"

namespace {

using namespace drydock;
using namespace drydock::runtime;

constexpr int64_t kBlockTokens = 32, kBlocksEach = 32;
constexpr double kWeightBytes = 2 * 158.6e6;  // bf16; the tied embedding is read once a step, as the head

std::unique_ptr<Engine> engine_of(int threads, int64_t sequences) {
  EngineOptions options;
  options.kv_blocks = kBlocksEach * sequences;
  options.block_tokens = kBlockTokens;
  options.threads = threads;
  options.random_weights = 1;
  return make_cpu_engine(std::filesystem::path(DRYDOCK_SOURCE_DIR) / "tests/bench/qwen3_158m", options);
}

// Sequences of `context` tokens, of which the last `fresh` are computed in every step.
struct Load {
  Load(int64_t sequences, int64_t context, int64_t fresh) : tokens(static_cast<size_t>(fresh), 7) {
    for (int64_t s = 0; s < sequences; ++s) {
      blocks.emplace_back(kBlocksEach);
      std::iota(blocks.back().begin(), blocks.back().end(), static_cast<int32_t>(s * kBlocksEach));
    }
    for (const auto& own : blocks)
      work.decodes.push_back(
          {.tokens = tokens, .context = context - fresh, .blocks = own, .outputs = 1, .sampling = &greedy});
  }
  std::vector<Token> tokens;
  std::vector<std::vector<int32_t>> blocks;
  Sampling greedy{.temperature = 0};
  RankWork work;
};

void run_steps(benchmark::State& state, int threads, const Load& load) {
  const auto engine = engine_of(threads, static_cast<int64_t>(load.blocks.size()));
  StepResult result;
  for (auto _ : state) engine->step({&load.work, 1}, result);
  const double tokens = static_cast<double>(load.tokens.size() * load.blocks.size());
  state.counters["tokens/s"] = benchmark::Counter(tokens, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["weights/s"] =
      benchmark::Counter(kWeightBytes, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

void decode(benchmark::State& state) {
  run_steps(state, static_cast<int>(state.range(0)), Load(state.range(1), state.range(2), 1));
}
void prompt(benchmark::State& state) {
  run_steps(state, static_cast<int>(state.range(0)), Load(1, state.range(1), state.range(1)));
}

// The same on the next lower instruction set where the best multiplies bf16 in pairs.
template <void (*kSteps)(benchmark::State&)>
void without_pairs(benchmark::State& state) {
  const std::string best = kernels::cpu::instruction_set();
  if (best != "avx512bf16") return state.SkipWithError("no AVX512_BF16 here");
  kernels::cpu::use_instruction_set("avx512");
  kSteps(state);
  kernels::cpu::use_instruction_set(best);
}

void read_memory(benchmark::State& state) {
  kernels::cpu::Threads threads(static_cast<int>(state.range(0)));
  const std::vector<uint64_t> numbers(static_cast<size_t>(kWeightBytes) / 8, 3);
  for (auto _ : state) {
    std::atomic<uint64_t> sum = 0;
    threads.parallel_for(static_cast<int64_t>(numbers.size()), [&](int64_t begin, int64_t end) {
      sum += std::accumulate(numbers.begin() + begin, numbers.begin() + end, uint64_t{0});
    });
    benchmark::DoNotOptimize(sum.load());
  }
  state.counters["weights/s"] =
      benchmark::Counter(kWeightBytes, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

}  // namespace

BENCHMARK(read_memory)->ArgName("threads")->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(decode)
    ->ArgNames({"threads", "batch", "context"})
    ->ArgsProduct({{1, 2}, {1, 8}, {128}})
    ->Args({2, 1, 1024})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(prompt)
    ->ArgNames({"threads", "tokens"})
    ->ArgsProduct({{1, 2}, {256}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(without_pairs<decode>)
    ->ArgNames({"threads", "batch", "context"})
    ->ArgsProduct({{1}, {1, 8}, {128}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(without_pairs<prompt>)
    ->ArgNames({"threads", "tokens"})
    ->Args({1, 256})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
