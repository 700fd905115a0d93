// Multi-head latent attention of prompts, and over picked tokens, on a GPU or emulated, against the reference in
// double.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "core/error.h"
#include "kernels/cuda/mla_decode.h"
#include "kernels/cuda/mla_prefill.h"
#include "kernels/reference.h"
#include "tests/effort.h"
#include "tests/kernels_cuda_attention_bed.h"

namespace drydock::tests {
namespace {

struct MlaDims {
  int64_t nope, rope, value;
};
constexpr MlaDims kDeepSeek{128, 64, 128}, kWider{192, 64, 256};
struct FreshCached {
  int32_t fresh, cached;
};

class MlaPrefillProblem {
 public:
  MlaPrefillProblem(const MlaDims& dims, int64_t heads, const std::vector<FreshCached>& chunks, uint64_t seed)
      : random_(seed),
        dims_(dims),
        heads_(heads),
        starts_(sums(chunks, false)),
        key_starts_(sums(chunks, true)),
        // The rotated keys as they stand in gathered rows of a latent cache, of which the rest is not theirs to read.
        q_(random_bf16(random_, starts_.host.back() * heads * (dims.nope + dims.rope))),
        kv_(random_bf16(random_, key_starts_.host.back() * heads * (dims.nope + dims.value))),
        rope_(random_bf16(random_, key_starts_.host.back() * kStride)) {
    for (const FreshCached& chunk : chunks) most_new_ = std::max<int64_t>(most_new_, chunk.fresh);
  }

  kernels::MlaPrefill op(bool on_device) {
    kernels::MlaPrefill op;
    op.q = q_.at(on_device), op.kv = kv_.at(on_device), op.k_rope = rope_.at(on_device) + 8;
    op.rope_stride = kStride;
    op.starts = starts_.at(on_device), op.key_starts = key_starts_.at(on_device);
    op.tokens = starts_.host.back(), op.batch = static_cast<int64_t>(starts_.host.size()) - 1, op.heads = heads_;
    op.nope = dims_.nope, op.rope = dims_.rope, op.value_dim = dims_.value, op.most_new = most_new_;
    op.scale = 4 / std::sqrt(static_cast<float>(dims_.nope + dims_.rope));  // logits of a spread of about 1.3
    return op;
  }

  void run_and_check() {
    const std::vector<double> want = kernels::reference::mla_prefill(op(false));
    kernels::MlaPrefill on_device = op(true);
    OnDevice<kernels::Bf16> out(poisoned(starts_.host.back() * heads_ * dims_.value));
    on_device.out = out.data();
    kernels::cuda::mla_prefill(on_device, nullptr);
    check_close(out.read(), want, 1);
  }

 private:
  static constexpr int64_t kStride = 80;
  static std::vector<int32_t> sums(const std::vector<FreshCached>& chunks, bool cached) {
    std::vector<int32_t> out{0};
    for (const FreshCached& chunk : chunks) out.push_back(out.back() + chunk.fresh + (cached ? chunk.cached : 0));
    return out;
  }
  core::Random random_;
  MlaDims dims_;
  int64_t heads_, most_new_ = 0;
  Both<int32_t> starts_, key_starts_;
  Both<kernels::Bf16> q_, kv_, rope_;
};

TEST_CASE("MLA prefill on a GPU agrees with the reference: chunks, prefixes, tiles and their edges") {
  uint64_t seed = 0;
  in_every_order([&] {
    MlaPrefillProblem(kDeepSeek, 2, {{33, 0}, {0, 5}, {1, 40}}, ++seed).run_and_check();
    MlaPrefillProblem(kDeepSeek, 1, {{130, 31}}, ++seed).run_and_check();
    MlaPrefillProblem(kWider, 2, {{66, 3}, {3, 30}}, ++seed).run_and_check();
  });
}

TEST_CASE("what MLA prefill cannot compute is refused in one line") {
  MlaPrefillProblem problem(kDeepSeek, 1, {{4, 4}}, 1);
  kernels::MlaPrefill op = problem.op(true);
  op.value_dim = 64;
  CHECK_THROWS_WITH_AS(kernels::cuda::mla_prefill(op, nullptr),
                       "MLA prefill: nope 128, rope 64 and value_dim 64; 128, 64 and 128, or 192, 64 and 256 are right",
                       core::Error);
  op = problem.op(true);
  op.rope_stride = 68;
  CHECK_THROWS_WITH_AS(kernels::cuda::mla_prefill(op, nullptr),
                       "MLA prefill: rope_stride is 68; a multiple of 8, at least rope, is right", core::Error);
  op = problem.op(true);
  op.tokens = 0;
  CHECK_NOTHROW(kernels::cuda::mla_prefill(op, nullptr));
}

TEST_CASE("sparse MLA on a GPU agrees with the reference, split or not") {
  constexpr int64_t kLatentDim = 512, kRopeDim = 64, kWidth = kLatentDim + kRopeDim, kBlockTokens = 16, kMost = 100;
  const std::vector<int32_t> contexts = {70, 1, 100}, sequences = {2, 0, 1, 2}, counts = {40, 33, 1, 0};
  uint64_t seed = 0;
  in_every_order([&] {
    for (const int64_t heads : {3, 40}) {
      core::Random random(++seed);
      const Dealt dealt = deal_blocks(random, contexts, kBlockTokens);
      Both<uint8_t> cache(random_cache(random, dealt, contexts, kBlockTokens, kWidth, core::Dtype::bf16));
      Both<int32_t> blocks(dealt.blocks), rows(sequences), numbers(counts);
      std::vector<int32_t> lists(sequences.size() * kMost, -1);
      for (size_t t = 0; t < sequences.size(); ++t) {
        std::vector<int32_t> all(static_cast<size_t>(contexts[static_cast<size_t>(sequences[t])]));
        std::iota(all.begin(), all.end(), 0);
        for (size_t i = all.size(); i > 1; --i)
          std::swap(all[i - 1], all[static_cast<size_t>(random.integer(0, static_cast<int64_t>(i) - 1))]);
        std::copy_n(all.begin(), counts[t], lists.begin() + static_cast<int64_t>(t) * kMost);
      }
      Both<int32_t> selected(lists);
      const auto tokens = static_cast<int64_t>(sequences.size());
      Both<kernels::Bf16> q(random_bf16(random, tokens * heads * kWidth));
      const auto op_at = [&](bool on_device) {
        kernels::SparseMla op;
        op.q = q.at(on_device), op.cache = cache.at(on_device), op.block_tokens = kBlockTokens;
        op.blocks = blocks.at(on_device), op.blocks_per_sequence = dealt.per_sequence;
        op.sequences = rows.at(on_device), op.selected = selected.at(on_device), op.counts = numbers.at(on_device);
        op.tokens = tokens, op.most_selected = kMost, op.heads = heads, op.latent = kLatentDim, op.rope = kRopeDim;
        op.scale = 1 / 6.0F;
        return op;
      };
      const std::vector<double> want = kernels::reference::sparse_mla(op_at(false));
      for (const int64_t splits : {1, 2}) {
        CAPTURE(heads);
        CAPTURE(splits);
        kernels::cuda::MlaOptions options;
        options.split.splits = splits;
        kernels::SparseMla on_device = op_at(true);
        const size_t bytes = kernels::cuda::sparse_mla_workspace_bytes(on_device, options);
        OnDevice<uint8_t> workspace(poisoned_workspace(bytes, kernels::cuda::kAttentionCounterBytes));
        OnDevice<kernels::Bf16> out(poisoned(tokens * heads * kLatentDim));
        on_device.out = out.data();
        kernels::cuda::sparse_mla(on_device, {workspace.data(), bytes}, nullptr, options);
        check_close(out.read(), want, 1);
      }
    }
  });
}

}  // namespace
}  // namespace drydock::tests
