// What the runtime adds to a step: the scheduler alone and the whole worker, 256 sequences that decode.
#include <benchmark/benchmark.h>

#include <atomic>
#include <thread>

#include "runtime/worker.h"
#include "scheduler/scheduler.h"

namespace {

using namespace drydock;

constexpr int64_t kSequences = 256;

void scheduler_step(benchmark::State& state) {
  scheduler::Policy policy = scheduler::vllm(8192, kSequences);
  policy.counts_tokens = true;
  scheduler::Scheduler s(policy, 200'000, 32);
  for (int64_t i = 0; i < kSequences; ++i) {
    scheduler::Request request;
    request.prompt_tokens = 32;
    request.output_tokens = 1'000'000'000 / 8192;
    s.add(request);
  }
  s.next_batch();
  s.complete();
  int64_t steps = 0;
  for (auto _ : state) {
    if (++steps > 20'000) {
      state.SkipWithError("the sequences are over");
      break;
    }
    const scheduler::Batch& batch = s.next_batch();
    for (const scheduler::RequestId id : batch.decodes) s.won(id, 1);
    benchmark::DoNotOptimize(s.complete().finished.size());
  }
}
BENCHMARK(scheduler_step)->Unit(benchmark::kMicrosecond)->Iterations(10'000);

// An engine that takes no time, and a client that counts.
class NoEngine : public runtime::Engine {
 public:
  int64_t vocabulary() const override { return 256; }
  void step(std::span<const runtime::RankWork> ranks, runtime::StepResult& result) override {
    result.tokens.clear();
    for (const runtime::RankWork& r : ranks)
      for (const auto* some : {&r.prompts, &r.decodes})
        for (const auto& w : *some)
          for (int64_t i = 0; i < w.outputs; ++i) result.tokens.push_back({65, 0, {}});
  }
  size_t kv_block_bytes() const override { return 0; }
  void read_kv(int, std::span<const int32_t>, std::span<std::byte>) override {}
  void write_kv(int, std::span<const int32_t>, std::span<const std::byte>) override {}
};

class Counter : public runtime::WorkerSink {
 public:
  void news(std::vector<runtime::News> news) override {
    for (const runtime::News& n : news) {
      tokens += static_cast<int64_t>(n.tokens.size());
      finished += n.kind == runtime::NewsKind::finished;
    }
  }
  void lost(const std::string&) override {}
  std::atomic<int64_t> tokens{0}, finished{0};
};

void worker_step(benchmark::State& state) {
  constexpr int64_t kTokens = 2000;
  double seconds = 0;
  int64_t steps = 0;
  for (auto _ : state) {
    Counter counter;
    runtime::WorkerSpec spec;
    spec.policy = scheduler::vllm(8192, kSequences);
    spec.kv_blocks = 50'000;
    runtime::Worker worker(spec, std::make_unique<NoEngine>(), counter, {});
    const auto begin = runtime::Clock::now();
    for (int64_t i = 0; i < kSequences; ++i) {
      runtime::Start start;
      start.attempt = static_cast<runtime::Attempt>(i + 1);
      start.tokens.assign(16, 1);
      start.most_tokens = kTokens;
      worker.start(start);
    }
    while (counter.finished < kSequences) std::this_thread::sleep_for(std::chrono::microseconds(200));
    seconds += std::chrono::duration<double>(runtime::Clock::now() - begin).count();
    steps += worker.pulse().steps;
  }
  state.counters["us_per_step"] = seconds * 1e6 / static_cast<double>(steps);
}
BENCHMARK(worker_step)->Unit(benchmark::kMillisecond)->Iterations(3);

}  // namespace
