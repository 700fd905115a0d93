// The CPU kernels: GB/s over the bytes and GFLOP/s over the arithmetic that core::Op counts; matrix products beside
// Eigen's own. Build with preset `bench`; DRYDOCK_BENCH_THREADS sets the threads (default: all).
#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "kernels/work.h"
#include "tests/kernels_bed.h"

namespace drydock::tests {
namespace {

using benchmark::Counter;
using benchmark::State;
using namespace kernels;

cpu::Threads& threads() {
  static cpu::Threads all(
      std::getenv("DRYDOCK_BENCH_THREADS") != nullptr ? std::atoi(std::getenv("DRYDOCK_BENCH_THREADS")) : 0);
  return all;
}

void report(State& state, const core::Op& op) {
  const auto times = static_cast<double>(state.iterations());
  state.counters["GB/s"] = Counter(core::bytes(op) * times / 1e9, Counter::kIsRate);
  if (core::flops(op) > 0) state.counters["GFLOP/s"] = Counter(core::flops(op) * times / 1e9, Counter::kIsRate);
}

void gemm(State& state, Dtype activations, Dtype weights, Scaling scaling) {
  const int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  core::Random random(1);
  Numbers a = random_numbers(random, activations, m * k), b = random_numbers(random, weights, n * k);
  Numbers out(Dtype::bf16, m * n);
  const std::vector<float> scales = random_scales(random, n + n * k / 128 / 128 + 1);
  Gemm op{matrix(a, m, k), matrix(b, n, k), matrix(out, m, n)};
  if (scaling != Scaling::none) op.b.scales = scales.data(), op.b.scaling = scaling;
  for (auto _ : state) cpu::gemm(op, threads());
  report(state, op_of(op));
}

// bf16 on the next lower instruction set where the best multiplies bf16 in pairs.
void gemm_without_pairs(State& state) {
  const std::string best = cpu::instruction_set();
  if (best != "avx512bf16") return state.SkipWithError("no AVX512_BF16 here");
  cpu::use_instruction_set("avx512");
  gemm(state, Dtype::bf16, Dtype::bf16, Scaling::none);
  cpu::use_instruction_set(best);
}

// One thread, as Eigen has without OpenMP; set DRYDOCK_BENCH_THREADS=1 to compare.
void eigen_gemm(State& state) {
  using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  const Rows a = Rows::Random(m, k), b = Rows::Random(n, k);
  Rows out(m, n);
  for (auto _ : state) out.noalias() = a * b.transpose();
  report(state, core::make_op(core::OpKind::gemm, Dtype::fp32, Dtype::fp32, {m, n, k}));
}

void grouped_gemm(State& state) {
  const int64_t tokens = state.range(0), groups = 8, n = 1024, k = 2048;
  core::Random random(2);
  Numbers a = random_numbers(random, Dtype::bf16, tokens * k), b = random_numbers(random, Dtype::bf16, groups * n * k);
  Numbers out(Dtype::bf16, tokens * n);
  std::vector<int32_t> starts;
  for (int64_t g = 0; g <= groups; ++g) starts.push_back(static_cast<int32_t>(tokens * g / groups));
  const GroupedGemm op{matrix(a, tokens, k), matrix(b, groups * n, k), matrix(out, tokens, n), starts.data(), groups};
  for (auto _ : state) cpu::grouped_gemm(op, threads());
  const auto times = static_cast<double>(state.iterations());
  state.counters["GB/s"] =
      Counter(static_cast<double>(a.bytes.size() + b.bytes.size() + out.bytes.size()) * times / 1e9, Counter::kIsRate);
  state.counters["GFLOP/s"] = Counter(2e-9 * static_cast<double>(tokens * n * k) * times, Counter::kIsRate);
}

void decode_attention(State& state, Dtype kv) {
  const int64_t batch = state.range(0), context = state.range(1), heads = 32, kv_heads = 8, dim = 128;
  core::Random random(3);
  const std::vector<int32_t> contexts(static_cast<size_t>(batch), static_cast<int32_t>(context));
  PagedCache cache(random, kv, contexts, kv_heads, dim, 16);
  Numbers q = random_numbers(random, Dtype::bf16, batch * heads * dim), out(Dtype::bf16, q.count());
  DecodeAttention op{q.data(), out.data(), Dtype::bf16, cache.kv, contexts.data(), batch, heads, context};
  op.scale = 0.088F;
  for (auto _ : state) cpu::decode_attention(op, threads());
  report(state, op_of(op));
}

void prefill_attention(State& state) {
  const int64_t fresh = state.range(0), cached = state.range(1), heads = 32, kv_heads = 8, dim = 128;
  core::Random random(4);
  const std::vector<int32_t> contexts = {static_cast<int32_t>(fresh + cached)},
                             starts = {0, static_cast<int32_t>(fresh)};
  PagedCache cache(random, Dtype::bf16, contexts, kv_heads, dim, 16);
  Numbers q = random_numbers(random, Dtype::bf16, fresh * heads * dim), out(Dtype::bf16, q.count());
  PrefillAttention op{q.data(),        out.data(), Dtype::bf16, cache.kv, starts.data(),
                      contexts.data(), fresh,      1,           heads,    fresh};
  op.scale = 0.088F;
  for (auto _ : state) cpu::prefill_attention(op, threads());
  report(state, op_of(op, cached));
}

void mla_decode(State& state) {
  const int64_t context = state.range(0), heads = 16, latent = 512, rope = 64;
  core::Random random(5);
  const std::vector<int32_t> contexts = {static_cast<int32_t>(context)};
  PagedCache cache(random, Dtype::bf16, contexts, 1, latent + rope, 64);
  Numbers q = random_numbers(random, Dtype::bf16, heads * (latent + rope)), out(Dtype::bf16, heads * latent);
  MlaDecode op{
      q.data(), out.data(), Dtype::bf16, cache.k.data(), 64, cache.blocks.data(), cache.kv.blocks_per_sequence};
  op.contexts = contexts.data(), op.batch = 1, op.heads = heads, op.latent = latent, op.rope = rope;
  op.most_context = context, op.scale = 0.04F;
  for (auto _ : state) cpu::mla_decode(op, threads());
  report(state, op_of(op));
}

void add_rms_norm(State& state) {
  const int64_t tokens = state.range(0), hidden = 4096;
  core::Random random(6);
  Numbers x = random_numbers(random, Dtype::bf16, tokens * hidden),
          weight = random_numbers(random, Dtype::bf16, hidden);
  Numbers residual = random_numbers(random, Dtype::bf16, tokens * hidden), out(Dtype::bf16, tokens * hidden);
  const AddRmsNorm op{matrix(x, tokens, hidden), matrix(residual, tokens, hidden), weight.data(),
                      matrix(out, tokens, hidden)};
  for (auto _ : state) cpu::add_rms_norm(op, threads());
  report(state, op_of(op));
}

void silu_mul(State& state) {
  const int64_t tokens = state.range(0), width = 14336;
  core::Random random(7);
  Numbers x = random_numbers(random, Dtype::bf16, tokens * 2 * width), out(Dtype::bf16, tokens * width);
  const SiluMul op{matrix(x, tokens, 2 * width), matrix(out, tokens, width), nullptr};
  for (auto _ : state) cpu::silu_mul(op, threads());
  report(state, op_of(op));
}

void quantize(State& state) {
  const int64_t tokens = state.range(0), cols = 4096;
  core::Random random(8);
  Numbers x = random_numbers(random, Dtype::bf16, tokens * cols), out(Dtype::fp8, tokens * cols);
  std::vector<float> scales(static_cast<size_t>(tokens * cols / 128));
  Quantize op{matrix(x, tokens, cols), matrix(out, tokens, cols), scales.data()};
  op.out.scaling = Scaling::block;
  for (auto _ : state) cpu::quantize(op, threads());
  report(state, op_of(op));
}

void rope_append(State& state) {
  const int64_t tokens = state.range(0), heads = 32, kv_heads = 8, dim = 128;
  core::Random random(9);
  const std::vector<int32_t> contexts = {static_cast<int32_t>(tokens)};
  PagedCache cache(random, Dtype::bf16, contexts, kv_heads, dim, 16);
  Numbers qkv = random_numbers(random, Dtype::bf16, tokens * (heads + 2 * kv_heads) * dim);
  std::vector<int32_t> positions(static_cast<size_t>(tokens)), sequences(positions.size(), 0);
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<float> frequencies(dim / 2, 0.01F);
  const RopeAppend op{qkv.data(), Dtype::bf16,      cache.kv,         tokens,
                      heads,      positions.data(), sequences.data(), frequencies.data()};
  for (auto _ : state) cpu::rope_append(op, threads());
  report(state, op_of(op));
}

void sample(State& state) {
  const int64_t vocabulary = 128256;
  core::Random random(10);
  Numbers logits = random_numbers(random, Dtype::fp32, vocabulary);
  for (int64_t i = 0; i < vocabulary; ++i) static_cast<float*>(logits.data())[i] *= 12;
  const auto temperature = static_cast<float>(state.range(0)) / 10, top_p = static_cast<float>(state.range(2)) / 100;
  const auto top_k = static_cast<int32_t>(state.range(1));
  uint64_t seed = 1, counter = 0;
  int32_t token = 0;
  const Sample op{matrix(logits, 1, vocabulary), &temperature, &top_k, &top_p, &seed, &counter, &token};
  for (auto _ : state) ++counter, cpu::sample(op, threads());
  state.counters["GB/s"] = Counter(4e-9 * vocabulary * static_cast<double>(state.iterations()), Counter::kIsRate);
}

void products(benchmark::internal::Benchmark* bench) {
  bench->Args({1, 4096, 4096})
      ->Args({8, 4096, 4096})
      ->Args({16, 4096, 4096})
      ->Args({32, 4096, 4096})
      ->Args({256, 2048, 2048})
      ->UseRealTime();
}

BENCHMARK_CAPTURE(gemm, fp32, Dtype::fp32, Dtype::fp32, Scaling::none)->Apply(products);
BENCHMARK(eigen_gemm)->Apply(products);
BENCHMARK_CAPTURE(gemm, bf16, Dtype::bf16, Dtype::bf16, Scaling::none)->Apply(products);
BENCHMARK(gemm_without_pairs)->Apply(products);
BENCHMARK_CAPTURE(gemm, fp8_row, Dtype::bf16, Dtype::fp8, Scaling::row)->Apply(products);
BENCHMARK_CAPTURE(gemm, fp8_block, Dtype::bf16, Dtype::fp8, Scaling::block)->Apply(products);
BENCHMARK(grouped_gemm)->Arg(8)->Arg(128)->UseRealTime();
BENCHMARK_CAPTURE(decode_attention, bf16, Dtype::bf16)->Args({1, 8192})->Args({8, 1024})->UseRealTime();
BENCHMARK_CAPTURE(decode_attention, fp8, Dtype::fp8)->Args({1, 8192})->Args({8, 1024})->UseRealTime();
BENCHMARK(prefill_attention)->Args({512, 0})->Args({128, 2048})->UseRealTime();
BENCHMARK(mla_decode)->Arg(4096)->UseRealTime();
BENCHMARK(add_rms_norm)->Arg(1)->Arg(256)->UseRealTime();
BENCHMARK(silu_mul)->Arg(1)->Arg(256)->UseRealTime();
BENCHMARK(quantize)->Arg(1)->Arg(256)->UseRealTime();
BENCHMARK(rope_append)->Arg(1)->Arg(256)->UseRealTime();
// Temperature * 10, top-k, top-p * 100.
BENCHMARK(sample)->Args({0, 0, 100})->Args({7, 0, 100})->Args({7, 50, 100})->Args({7, 0, 95})->UseRealTime();

}  // namespace
}  // namespace drydock::tests
