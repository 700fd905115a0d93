// Absorbed MLA decode on a GPU, or emulated, against the reference in double.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "core/error.h"
#include "kernels/cuda/mla_decode.h"
#include "kernels/reference.h"
#include "tests/effort.h"
#include "tests/kernels_cuda_attention_bed.h"

namespace drydock::tests {
namespace {

using kernels::cuda::Combining;
using kernels::cuda::MlaOptions;
using kernels::cuda::MlaRows;

constexpr int64_t kLatent = 512, kRope = 64;

class MlaProblem {
 public:
  MlaProblem(int64_t heads, int64_t block_tokens, const std::vector<int32_t>& contexts, uint64_t seed)
      : random_(seed),
        heads_(heads),
        block_tokens_(block_tokens),
        batch_(static_cast<int64_t>(contexts.size())),
        dealt_(deal_blocks(random_, contexts, block_tokens)),
        cache_(random_cache(random_, dealt_, contexts, block_tokens, kLatent + kRope, core::Dtype::bf16)),
        blocks_(dealt_.blocks),
        contexts_(contexts),
        q_(random_bf16(random_, batch_ * heads * (kLatent + kRope))) {}

  kernels::MlaDecode op(bool on_device) {
    kernels::MlaDecode op;
    op.q = q_.at(on_device);
    op.cache = cache_.at(on_device);
    op.block_tokens = block_tokens_;
    op.blocks = blocks_.at(on_device);
    op.blocks_per_sequence = dealt_.per_sequence;
    op.contexts = contexts_.at(on_device);
    op.batch = batch_;
    op.heads = heads_;
    op.latent = kLatent;
    op.rope = kRope;
    op.most_context = *std::max_element(contexts_.host.begin(), contexts_.host.end());
    op.scale = 1 / 6.0F;  // logits of a spread of about 1.3
    return op;
  }

  void run_and_check(const MlaOptions& options, int times = 1) {
    const std::vector<double> want = kernels::reference::mla_decode(op(false));
    kernels::MlaDecode on_device = op(true);
    const size_t bytes = kernels::cuda::mla_workspace_bytes(on_device, options);
    OnDevice<uint8_t> workspace(poisoned_workspace(bytes, kernels::cuda::kAttentionCounterBytes));
    for (int i = 0; i < times; ++i) {
      OnDevice<kernels::Bf16> out(poisoned(batch_ * heads_ * kLatent));
      on_device.out = out.data();
      kernels::cuda::mla_decode(on_device, {workspace.data(), bytes}, nullptr, options);
      check_close(out.read(), want, 1);
    }
  }

 private:
  core::Random random_;
  int64_t heads_, block_tokens_, batch_;
  Dealt dealt_;
  Both<uint8_t> cache_;
  Both<int32_t> blocks_, contexts_;
  Both<kernels::Bf16> q_;
};

TEST_CASE("MLA decode agrees with the reference on random shapes") {
  uint64_t seed = 0;
  in_every_order([&] {
    for (const int64_t heads : {1, 16, 20, 64, 65}) {
      core::Random random(++seed);
      MlaOptions options;
      options.split.splits = random.integer(0, 3);
      options.split.combining = random.integer(0, 1) == 0 ? Combining::fused : Combining::separate;
      if (heads <= 20 && random.integer(0, 2) == 0) options.rows = MlaRows::many;
      if (heads > 20 && random.integer(0, 2) == 0) options.rows = MlaRows::few;
      const int64_t block_tokens = int64_t{1} << random.integer(3, 6);
      std::vector<int32_t> contexts;
      for (int64_t s = random.integer(1, 2); s > 0; --s)
        contexts.push_back(static_cast<int32_t>(random.integer(0, heads > 20 ? 100 : 250)));
      CAPTURE(seed);
      CAPTURE(heads);
      MlaProblem(heads, block_tokens, contexts, seed).run_and_check(options);
    }
  });
}

TEST_CASE("MLA decode: contexts around the tile, and the same for any number of splits") {
  for (int64_t splits = 1; splits <= 4; ++splits) {
    for (const Combining combining : {Combining::fused, Combining::separate}) {
      CAPTURE(splits);
      MlaOptions options;
      options.split = {splits, combining};
      MlaProblem(3, 16, {0, 1, 31, 32, 33, 130}, static_cast<uint64_t>(splits)).run_and_check(options, 2);
    }
  }
}

TEST_CASE("what MLA decode cannot compute is refused in one line") {
  MlaProblem problem(4, 16, {200}, 1);
  const auto message = [&](auto change) -> std::string {
    kernels::MlaDecode op = problem.op(true);
    change(op);
    MlaOptions options;
    options.split.splits = 2;
    try {
      kernels::cuda::mla_decode(op, {}, nullptr, options);
    } catch (const core::Error& error) {
      return error.what();
    }
    return "";
  };
  using Op = kernels::MlaDecode;
  CHECK(message([](Op& op) { op.latent = 256; }) == "MLA decode: latent 256 and rope 64; 512 and 64 are right");
  CHECK(message([](Op& op) { op.block_tokens = 48; }).find("a power of two") != std::string::npos);
  CHECK(message([](Op& op) { op.dtype = core::Dtype::fp8; }).find("bf16 is right") != std::string::npos);
  CHECK(message([](Op&) {}).find("the workspace has 0 bytes") != std::string::npos);
  CHECK(message([](Op& op) { op.batch = 0; }).empty());
}

}  // namespace
}  // namespace drydock::tests
