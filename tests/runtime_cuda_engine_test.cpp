// The CUDA engine against the CPU engine, on a GPU.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <string>

#include "runtime/cuda_engine.h"
#include "tests/runtime_cuda_bed.h"

extern "C" drydock::runtime::Engine* drydock_open_engine(const char*, const drydock::runtime::EngineOptions*, char*,
                                                         size_t);

namespace drydock::tests {
namespace {

using namespace runtime;

std::unique_ptr<Engine> gpu_engine(const WideModel& wide) {
  const EngineOptions options = wide.options();
  std::array<char, 512> error{};
  std::unique_ptr<Engine> engine(drydock_open_engine(wide.dir().c_str(), &options, error.data(), error.size()));
  INFO(error.data());
  REQUIRE(engine != nullptr);
  return engine;
}

constexpr Sampling kGreedy{.temperature = 0, .logprobs = 512};

GeneratedToken compute(Engine& engine, const std::vector<Token>& tokens, int64_t context,
                       const std::vector<int32_t>& blocks, const Sampling& sampling = kGreedy) {
  RankWork work;
  work.decodes.push_back({.tokens = std::span(tokens).subspan(static_cast<size_t>(context)),
                          .context = context,
                          .blocks = blocks,
                          .outputs = 1,
                          .sampling = &sampling,
                          .answered = context});
  StepResult result;
  engine.step({&work, 1}, result);
  REQUIRE(result.tokens.size() == 1);
  return result.tokens.front();
}

double distance(GeneratedToken a, GeneratedToken b) {
  const auto by_id = [](const TokenLogprob& x, const TokenLogprob& y) { return x.token < y.token; };
  std::sort(a.top.begin(), a.top.end(), by_id);
  std::sort(b.top.begin(), b.top.end(), by_id);
  double sum = 0;
  for (size_t i = 0; i < a.top.size(); ++i) sum += std::pow(double{a.top[i].logprob} - double{b.top[i].logprob}, 2);
  return std::sqrt(sum / static_cast<double>(a.top.size()));
}

std::vector<Token> prompt_of(int count) {
  std::vector<Token> out;
  for (int i = 0; i < count; ++i) out.push_back((i * 37 + 5) % 512);
  return out;
}

}  // namespace

TEST_CASE("CUDA engine: log-probabilities of the CPU engine, by launches and by graphs") {
  for (const char* golden : {"llama3", "qwen3", "qwen3_moe"}) {
    CAPTURE(golden);
    const WideModel wide(golden);
    const auto cpu = make_cpu_engine(wide.dir(), wide.options()), gpu = gpu_engine(wide);
    std::vector<Token> tokens = prompt_of(40);
    const std::vector<int32_t> blocks = {5, 2, 9, 11, 30, 31};
    int64_t context = 0;
    // A prompt, then 40 steps of decoding on the CPU's choices: the first by launches, the second captured, then
    // replays.
    for (int step = 0; step < 40; ++step) {
      const GeneratedToken want = compute(*cpu, tokens, context, blocks), got = compute(*gpu, tokens, context, blocks);
      CHECK(distance(got, want) < 0.036);  // runtime_forward_simt_test.cpp derives it
      context = static_cast<int64_t>(tokens.size());
      tokens.push_back(want.token);
    }
  }
}

TEST_CASE("CUDA engine: KV blocks move to the CPU engine and back") {
  const WideModel wide("qwen3");
  const auto cpu = make_cpu_engine(wide.dir(), wide.options()), gpu = gpu_engine(wide);
  REQUIRE(cpu->kv_block_bytes() == gpu->kv_block_bytes());
  const std::vector<Token> tokens = prompt_of(50);
  const std::vector<int32_t> here = {3, 1, 0, 20}, there = {8, 9, 12, 7};
  const GeneratedToken want = compute(*gpu, tokens, 0, here);
  std::vector<std::byte> wire(4 * gpu->kv_block_bytes()), again(wire.size());
  gpu->read_kv(0, here, wire);
  cpu->write_kv(0, there, wire);
  CHECK(distance(compute(*cpu, tokens, 49, there), want) < 0.036);
  gpu->write_kv(0, there, wire);
  gpu->read_kv(0, there, again);
  CHECK(wire == again);
}

TEST_CASE("CUDA engine: a batch of many sequences is each of them alone") {
  const WideModel wide("llama3");
  const auto gpu = gpu_engine(wide);
  constexpr int kSequences = 13;
  std::vector<std::vector<Token>> tokens;
  std::vector<std::vector<int32_t>> blocks;
  for (int i = 0; i < kSequences; ++i) {
    tokens.push_back(prompt_of(10 + i));
    tokens.back()[0] = i;
    blocks.push_back({2 * i, 2 * i + 1});
    compute(*gpu, tokens.back(), 0, blocks.back());
  }
  for (int round = 0; round < 3; ++round) {  // launched, captured, replayed
    RankWork work;
    for (int i = 0; i < kSequences; ++i) {
      const auto context = static_cast<int64_t>(tokens[i].size()) - 1;
      work.decodes.push_back({.tokens = std::span(tokens[i]).subspan(static_cast<size_t>(context)),
                              .context = context,
                              .blocks = blocks[i],
                              .outputs = 1,
                              .sampling = &kGreedy});
    }
    StepResult result;
    gpu->step({&work, 1}, result);
    REQUIRE(result.tokens.size() == kSequences);
    for (int i = 0; i < kSequences; ++i) {
      const auto context = static_cast<int64_t>(tokens[i].size()) - 1;
      CHECK(distance(compute(*gpu, tokens[i], context, blocks[i]), result.tokens[i]) < 0.036);
    }
  }
}

}  // namespace drydock::tests
