// Tensor parallelism without GPUs: each rank of a model is a thread with its share of the weights, and they add up what
// the forward pass has them add up.
#include <doctest/doctest.h>

#include <array>
#include <barrier>
#include <cmath>
#include <thread>

#include "runtime/cpu_kernels.h"
#include "tests/runtime_engine_bed.h"

namespace drydock::tests {
namespace {

using namespace runtime;

constexpr int kRanks = 2;

struct Meeting {
  std::barrier<> all{kRanks};
  std::array<float*, kRanks> parts{};
};

class RankKernels : public CpuKernels {
 public:
  RankKernels(kernels::cpu::Threads& threads, Meeting& meeting, int rank)
      : CpuKernels(threads), meeting_(meeting), rank_(rank) {}

  void all_reduce(const kernels::Matrix& matrix) override {
    meeting_.parts[static_cast<size_t>(rank_)] = static_cast<float*>(matrix.data);
    meeting_.all.arrive_and_wait();
    if (rank_ == 0)
      for (int64_t i = 0; i < matrix.rows * matrix.cols; ++i)
        meeting_.parts[0][i] = meeting_.parts[1][i] = meeting_.parts[0][i] + meeting_.parts[1][i];
    meeting_.all.arrive_and_wait();
  }

 private:
  Meeting& meeting_;
  int rank_;
};

class KeptWeights : public WeightMemory {
 public:
  void* put(size_t bytes, const std::function<void(std::byte*)>& write) override {
    blocks_.emplace_back(bytes);
    write(blocks_.back().data());
    return blocks_.back().data();
  }

 private:
  std::vector<std::vector<std::byte>> blocks_;
};

// The logits that rank `rank` computes after a prompt.
std::vector<float> logits_of_rank(const std::string& golden, const RankWork& work, Meeting& meeting, int rank) {
  const ModelConfig whole = read_model_config(golden_dir(golden));
  kernels::cpu::Threads threads(1);
  KeptWeights memory;
  DeviceModel model;
  model.config = share_of(whole, {rank, kRanks});
  model.dtype = core::Dtype::fp32;
  model.block_tokens = kBedBlockTokens;
  model.weights = load_weights(whole, {rank, kRanks}, core::Dtype::fp32, *random_weights(7), memory, threads);
  std::vector<std::vector<float>> pools(2 * whole.layers.size());
  for (auto& pool : pools) pool.resize(static_cast<size_t>(kBedBlocks * kBedBlockTokens * model.config.kv_width()));
  for (size_t i = 0; i < pools.size(); i += 2) model.cache.push_back({pools[i].data(), pools[i + 1].data()});

  const StepExtents extents = extents_of(work, whole.vocabulary, kBedBlocks, kBedBlockTokens, whole.longest);
  size_t array_bytes = 0, activation_bytes = 0;
  StepArrays::at(nullptr, extents, array_bytes);
  Activations::at(nullptr, model.config, model.dtype, extents.tokens(), extents.outputs, activation_bytes);
  std::vector<std::max_align_t> array_memory(array_bytes / sizeof(std::max_align_t) + 1);
  std::vector<std::max_align_t> activation_memory(activation_bytes / sizeof(std::max_align_t) + 1);
  const StepArrays arrays = StepArrays::at(reinterpret_cast<std::byte*>(array_memory.data()), extents, array_bytes);
  const Activations activations = Activations::at(reinterpret_cast<std::byte*>(activation_memory.data()), model.config,
                                                  model.dtype, extents.tokens(), extents.outputs, activation_bytes);
  fill_step(work, extents, 0, arrays);
  RankKernels kernels(threads, meeting, rank);
  forward(model, extents, arrays, activations, kernels);
  const auto* logits = static_cast<const float*>(activations.logits.data);
  return {logits, logits + whole.vocabulary};
}

}  // namespace

TEST_CASE("two ranks of a tensor-parallel model compute transformers' logits, each") {
  for (const char* name : {"llama3", "qwen3", "qwen3_moe"}) {
    CAPTURE(name);
    const Golden golden = read_golden(name);
    Sequence sequence(golden.prompt, 3, 6);
    RankWork work;
    work.prompts.push_back(sequence.work(sequence.left(), 1));
    Meeting meeting;
    std::array<std::vector<float>, kRanks> logits;
    {
      std::jthread other([&] { logits[1] = logits_of_rank(name, work, meeting, 1); });
      logits[0] = logits_of_rank(name, work, meeting, 0);
    }
    for (const auto& own : logits)
      for (size_t i = 0; i < own.size(); ++i) REQUIRE(std::abs(double{own[i]} - golden.logits.back()[i]) < 1e-4);
  }
}

}  // namespace drydock::tests
