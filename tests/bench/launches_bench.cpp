// CPU kernels as the profiler launches them, by the key of their op: those that kernels_bench.cpp has no operands for.
#include <benchmark/benchmark.h>

#include <cstdlib>

#include "profiler/cpu_launch.h"

namespace drydock::tests {
namespace {

void launch(benchmark::State& state, const char* key) {
  const core::Op op = core::parse_op_key(key);
  if (const auto reason = profiler::why_no_launch(op)) return state.SkipWithError(reason->c_str());
  const char* const count = std::getenv("DRYDOCK_BENCH_THREADS");
  kernels::cpu::Threads threads(count != nullptr ? std::atoi(count) : 0);
  const profiler::Launch run = profiler::make_launch(op, threads);
  int64_t turn = 0;
  for (auto _ : state) run(turn++);
  const auto times = static_cast<double>(state.iterations());
  using benchmark::Counter;
  state.counters["GB/s"] = Counter(core::bytes(op) * times / 1e9, Counter::kIsRate);
  state.counters["GFLOP/s"] = Counter(core::flops(op) * times / 1e9, Counter::kIsRate);
}

#define DRYDOCK_LAUNCH(name, key) BENCHMARK_CAPTURE(launch, name, key)->UseRealTime()
DRYDOCK_LAUNCH(mla_prefill, "mla_prefill/bf16/batch=1,new_tokens=512,cached_tokens=0,heads=16,qk_dim=192,v_dim=128");
DRYDOCK_LAUNCH(sparse_mla, "sparse_mla/bf16/tokens=1,selected=2048,heads=16,latent=512,rope_dim=64");
DRYDOCK_LAUNCH(index_score, "index_score/fp8/batch=1,new_tokens=1,context=8192,heads=64,head_dim=128");
DRYDOCK_LAUNCH(gated_delta_prompt, "gated_delta/bf16/batch=1,new_tokens=512,k_heads=16,v_heads=32,k_dim=128,v_dim=128");
DRYDOCK_LAUNCH(gated_delta_decode, "gated_delta/bf16/batch=8,new_tokens=1,k_heads=16,v_heads=32,k_dim=128,v_dim=128");
DRYDOCK_LAUNCH(mamba2_prompt, "mamba2/bf16/batch=1,new_tokens=512,heads=64,head_dim=64,state=128,groups=8");
DRYDOCK_LAUNCH(mamba2_decode, "mamba2/bf16/batch=8,new_tokens=1,heads=64,head_dim=64,state=128,groups=8");
#undef DRYDOCK_LAUNCH

}  // namespace
}  // namespace drydock::tests
