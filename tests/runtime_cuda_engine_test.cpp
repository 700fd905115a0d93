// The CUDA engine against the CPU engine, on a GPU.
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "runtime/cuda_engine.h"
#include "runtime/ranked_engine.h"
#include "runtime/spawn.h"
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

TEST_CASE("CUDA engine: steps launched behind each other are the steps one by one") {
  const WideModel wide("llama3");
  const auto one = gpu_engine(wide), two = gpu_engine(wide);
  const Sampling sampled{.temperature = 0.8F, .seed = 5, .logprobs = 3};
  const std::vector<Token> prompt = prompt_of(20);
  const std::vector<int32_t> blocks = {5, 2, 9, 11};
  const auto part = [&](std::span<const Token> tokens, int64_t context, int64_t answered, int64_t follows) {
    RankWork work;
    work.decodes.push_back({.tokens = tokens,
                            .context = context,
                            .blocks = blocks,
                            .outputs = 1,
                            .sampling = &sampled,
                            .answered = answered,
                            .follows = follows});
    return work;
  };
  const auto kept = static_cast<int64_t>(prompt.size());
  const RankWork first = part(prompt, 0, 0, -1);
  std::vector<GeneratedToken> want;
  StepResult result;
  one->step({&first, 1}, result);
  want.push_back(result.tokens.front());
  constexpr int64_t kMore = 12;  // launched, captured, replayed
  for (int64_t i = 0; i < kMore; ++i) {
    const Token last[] = {want.back().token};
    const RankWork work = part(last, kept + i, i + 1, -1);
    one->step({&work, 1}, result);
    want.push_back(result.tokens.front());
  }
  two->launch({&first, 1});
  for (int64_t i = 0; i <= kMore; ++i) {
    const Token unknown[] = {0};
    const RankWork work = part(unknown, kept + i, i + 1, 0);
    if (i < kMore) two->launch({&work, 1});
    two->wait(result);
    CHECK(result.tokens.at(0).token == want[static_cast<size_t>(i)].token);
    CHECK(result.tokens.at(0).logprob == want[static_cast<size_t>(i)].logprob);
  }
}

TEST_CASE("CUDA engine: two ranks on two GPUs give the CPU engine's log-probabilities, and whole KV blocks") {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices < 2) {
    MESSAGE("skipped: it takes two GPUs, and here are " << devices);
    return;
  }
  for (const char* golden : {"llama3", "qwen3_moe"}) {
    CAPTURE(golden);
    const WideModel wide(golden);
    const auto cpu = make_cpu_engine(wide.dir(), wide.options());
    RankedOptions two;
    two.name = "worker/0";
    two.cuda = true;
    two.model_dir = wide.dir();
    two.engine = wide.options();
    two.engine.share.ranks = 2;
    two.start = [](int, int socket, int) {
      const auto drydock = std::filesystem::path(own_program()).parent_path() / "drydock";
      return spawn(drydock.string(), {"rank", "worker/0:1"}, {}, std::span(&socket, 1), "rank 1");
    };
    const auto gpus = make_ranked_engine(two);
    std::vector<Token> tokens = prompt_of(40);
    const std::vector<int32_t> blocks = {5, 2, 9, 11, 30, 31};
    for (int64_t context = 0, step = 0; step < 20; ++step) {  // by launches, then by graphs
      const GeneratedToken want = compute(*cpu, tokens, context, blocks);
      CHECK(distance(compute(*gpus, tokens, context, blocks), want) < 0.036);
      context = static_cast<int64_t>(tokens.size());
      tokens.push_back(want.token);
    }
    std::vector<std::byte> wire(blocks.size() * cpu->kv_block_bytes());
    gpus->read_kv(0, blocks, wire);
    cpu->write_kv(0, blocks, wire);
    const auto last = static_cast<int64_t>(tokens.size()) - 1;
    CHECK(distance(compute(*cpu, tokens, last, blocks), compute(*gpus, tokens, last, blocks)) < 0.036);
  }
}

}  // namespace drydock::tests
