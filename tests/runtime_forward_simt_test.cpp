// The forward pass on the GPU's kernels, emulated on the CPU (all but cuBLASLt, in whose place the tiled product
// stands), against the CPU engine: that both take the same work, padding as CUDA graphs have it included.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/grouped_gemm.h"
#include "kernels/cuda/moe.h"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/sampling.h"
#include "kernels/cuda/small_gemm.h"
#include "kernels/cuda/small_ops.h"
#include "kernels/cuda/take_drawn.h"
#include "runtime/forward.h"
#include "runtime/logprobs.h"
#include "tests/runtime_cuda_bed.h"
#include "tests/runtime_weights_bed.h"

namespace drydock::tests {
namespace {

namespace device = kernels::cuda;
using namespace runtime;

class Memory256 {
 public:
  explicit Memory256(size_t bytes) : bytes_(bytes), data_(new (std::align_val_t{256}) std::byte[bytes]()) {}
  std::byte* data() const { return data_.get(); }
  size_t size() const { return bytes_; }

 private:
  struct Free {
    void operator()(std::byte* data) const { ::operator delete[](data, std::align_val_t{256}); }
  };
  size_t bytes_;
  std::unique_ptr<std::byte[], Free> data_;
};

class EmulatedKernels : public KernelSet {
 public:
  void gemm(const kernels::Gemm& op) override {
    if (device::fits_small_gemm(op))
      device::small_gemm(op, workspace(), nullptr);
    else
      device::tiled_gemm(op, nullptr);
  }
  void grouped_gemm(const kernels::GroupedGemm& op) override { device::grouped_gemm(op, nullptr); }
  void decode_attention(const kernels::DecodeAttention& op) override {
    device::decode_attention(op, {attention_.data(), attention_.size()}, nullptr);
  }
  void prefill_attention(const kernels::PrefillAttention& op) override { device::prefill_attention(op, nullptr); }
  void route(const kernels::Route& op) override { device::route(op, nullptr); }
  void permute(const kernels::Permute& op) override { device::permute(op, workspace(), nullptr); }
  void gather(const kernels::Gather& op) override { device::gather(op, nullptr); }
  void combine(const kernels::Combine& op) override { device::combine(op, nullptr); }
  void add_rms_norm(const kernels::AddRmsNorm& op) override { device::add_rms_norm(op, nullptr); }
  void silu_mul(const kernels::SiluMul& op) override { device::silu_mul(op, nullptr); }
  void rope_append(const kernels::RopeAppend& op) override { device::rope_append(op, nullptr); }
  void embed(const kernels::Embed& op) override { device::embed(op, nullptr); }
  void sample(const kernels::Sample& op) override { device::sample(op, nullptr); }
  void take_drawn(const kernels::TakeDrawn& op) override { device::take_drawn(op, nullptr); }
  void all_reduce(const kernels::Matrix&) override {}
  void all_gather(const kernels::Matrix&, const kernels::Matrix&) override {}  // one rank

 private:
  device::Workspace workspace() const {
    return {reinterpret_cast<uint32_t*>(memory_.data()), memory_.data() + kCounters, memory_.size() - kCounters};
  }
  static constexpr size_t kCounters = device::kCounters * sizeof(uint32_t);
  Memory256 memory_{kCounters + (4 << 20)}, attention_{8 << 20};
};

class EmulatedEngine {
 public:
  explicit EmulatedEngine(const WideModel& wide) {
    const EngineOptions options = wide.options();
    model_.config = read_model_config(wide.dir());
    model_.block_tokens = options.block_tokens;
    kernels::cpu::Threads threads(1);
    model_.weights = load_weights(model_.config, {}, core::Dtype::bf16, *random_weights(7), weights_, threads);
    for (size_t i = 0; i < 2 * model_.config.layers.size(); ++i)
      pools_.emplace_back(static_cast<size_t>((kBlocks + 1) * options.block_tokens * model_.config.kv_width() * 2));
    for (size_t i = 0; i < pools_.size(); i += 2) model_.cache.push_back({pools_[i].data(), pools_[i + 1].data()});
  }

  std::vector<GeneratedToken> step(const RankWork& work) {
    const int64_t vocabulary = model_.config.vocabulary;
    StepExtents extents = extents_of(work, vocabulary, kBlocks, model_.block_tokens, model_.config.longest);
    if (extents.chunks == 0) extents = padded_extents(extents, model_.block_tokens);
    size_t array_bytes = 0, activation_bytes = 0;
    StepArrays::at(nullptr, extents, array_bytes);
    Activations::at(nullptr, model_.config, model_.dtype, extents.tokens(), extents.outputs, activation_bytes);
    const Memory256 array_memory(array_bytes), activation_memory(activation_bytes);
    const StepArrays arrays = StepArrays::at(array_memory.data(), extents, array_bytes);
    Activations activations = Activations::at(activation_memory.data(), model_.config, model_.dtype, extents.tokens(),
                                              extents.outputs, activation_bytes);
    fill_step(work, extents, kBlocks, arrays);
    activations.drawn = drawn_.data();
    activations.before = drawn_.data(), activations.drawn_before = static_cast<int64_t>(drawn_.size());
    forward(model_, extents, arrays, activations, kernels_);
    std::vector<GeneratedToken> out;
    for_each_sequence(work, [&](const SequenceWork& s) {
      for (int64_t i = 0; i < s.outputs; ++i) {
        const auto row = static_cast<int64_t>(out.size());
        out.push_back(with_logprobs(activations.drawn[row],
                                    static_cast<const float*>(activations.logits.data) + row * vocabulary, vocabulary,
                                    static_cast<int32_t>(vocabulary)));
      }
    });
    return out;
  }

 private:
  static constexpr int32_t kBlocks = 40;
  DeviceModel model_;
  BlockWeights<Memory256> weights_;
  std::vector<Memory256> pools_;
  std::vector<int32_t> drawn_ = std::vector<int32_t>(16);  // of the step before, then of this one
  EmulatedKernels kernels_;
};

}  // namespace

TEST_CASE("the forward pass on emulated GPU kernels is the CPU engine's") {
  for (const char* golden : {"llama3", "qwen3", "qwen3_moe"}) {
    CAPTURE(golden);
    const WideModel wide(golden);
    const auto cpu = make_cpu_engine(wide.dir(), wide.options());
    EmulatedEngine emulated(wide);
    const Sampling all{.temperature = 0, .logprobs = 512};
    std::vector<Token> a, b;
    for (int i = 0; i < 21; ++i) a.push_back((i * 37 + 5) % 512), b.push_back((i * 101 + 9) % 512);
    const std::vector<int32_t> blocks_a = {7, 3}, blocks_b = {12, 30};
    const auto both = [&](const RankWork& work, size_t outputs) {
      StepResult want;
      cpu->step({&work, 1}, want);
      const std::vector<GeneratedToken> got = emulated.step(work);
      REQUIRE(got.size() == outputs);
      REQUIRE(want.tokens.size() == outputs);
      // Both round to bf16 some ten times a layer, at different places: as in the CPU engine's own test against fp32,
      // sqrt(2 engines * 10 * 2 layers) * 2^-9 / sqrt 3 = 0.007, times five.
      for (size_t i = 0; i < outputs; ++i) CHECK(distance(got[i], want.tokens[i]) < 0.036);
    };
    const std::span<const Token> in_a(a), in_b(b);
    RankWork chunks;  // 20 tokens, more than the small product takes, then a chunk beside a single token
    chunks.prompts.push_back({.tokens = in_a.first(20), .blocks = blocks_a, .outputs = 2, .sampling = &all});
    both(chunks, 2);
    RankWork mixed;
    mixed.prompts.push_back({.tokens = in_b.first(3), .blocks = blocks_b, .outputs = 0, .sampling = &all});
    mixed.decodes.push_back(
        {.tokens = in_a.subspan(20, 1), .context = 20, .blocks = blocks_a, .outputs = 1, .sampling = &all});
    both(mixed, 1);
    RankWork decode;  // two sequences of one token
    decode.decodes.push_back(
        {.tokens = in_b.subspan(3, 1), .context = 3, .blocks = blocks_b, .outputs = 1, .sampling = &all});
    decode.decodes.push_back(
        {.tokens = in_b.subspan(9, 1), .context = 21, .blocks = blocks_a, .outputs = 1, .sampling = &all});
    both(decode, 2);
    decode.decodes.push_back(
        {.tokens = in_b.subspan(10, 1), .blocks = std::span(blocks_b).subspan(1), .outputs = 1, .sampling = &all});
    decode.decodes[0] = decode.decodes[1];
    decode.decodes[0].tokens = in_a.subspan(2, 1), decode.decodes[0].context = 22;
    decode.decodes.erase(decode.decodes.begin() + 1);
    both(decode, 2);
    decode.decodes.push_back(
        {.tokens = in_b.subspan(4, 1), .context = 4, .blocks = blocks_b, .outputs = 1, .sampling = &all});
    decode.decodes[0].context = 23;
    decode.decodes[1].context = 1;
    both(decode, 3);  // padded to four
    // The last one's draw is the next token of its sequence, the others' are known.
    decode.decodes[0].context = 24, decode.decodes[1].context = 2, decode.decodes[2].context = 5;
    decode.decodes[2].tokens = in_b.first(1), decode.decodes[2].follows = 2;
    both(decode, 3);
  }
}

TEST_CASE("decoding steps are padded to few shapes") {
  const auto padded = [](int64_t batch, int64_t blocks) {
    StepExtents extents;
    extents.singles = extents.outputs = batch;
    extents.blocks_per_sequence = blocks;
    return padded_extents(extents, 16);
  };
  CHECK(padded(1, 1).singles == 1);
  CHECK(padded(3, 1).singles == 4);
  CHECK(padded(9, 1).outputs == 16);
  CHECK(padded(65, 1).singles == 80);
  CHECK(padded(1, 1).blocks_per_sequence == 16);
  CHECK(padded(1, 16).single_context == 256);
  CHECK(padded(1, 129).blocks_per_sequence == 160);  // steps of 256 / 8
  CHECK(padded(1, 1000).blocks_per_sequence == 1024);
}

}  // namespace drydock::tests
