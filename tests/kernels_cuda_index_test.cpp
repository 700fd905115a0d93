// The indexer of sparse attention on a GPU, or emulated, against the reference in double.
#include <doctest/doctest.h>

#include <string>

#include "core/error.h"
#include "kernels/cuda/index_score.h"
#include "tests/kernels_index_bed.h"
#include "tests/simt/on_device.h"

namespace drydock::tests {
namespace {

TEST_CASE("the indexer on a GPU selects what the reference's scores say") {
  uint64_t seed = 70;
  in_every_order([&] {
    for (const auto& [heads, top_k] : {std::pair<int64_t, int64_t>{64, 40}, {16, 100}, {32, 7}}) {
      core::Random random(++seed);
      IndexProblem p(random, heads, 128, 16, top_k, {{2, 140}, {0, 9}, {1, 0}, {19, 30}});
      const auto want = kernels::reference::index_score(p.op());
      OnDevice<kernels::Fp8> q(p.q), keys(p.keys);
      OnDevice<float> weights(p.weights), key_scales(p.key_scales);
      OnDevice<int32_t> blocks(p.blocks), starts(p.starts), contexts(p.contexts), selected(p.selected),
          counts(p.counts);
      kernels::IndexScore op = p.op();
      op.q = q.data(), op.keys = keys.data(), op.weights = weights.data(), op.key_scales = key_scales.data();
      op.blocks = blocks.data(), op.starts = starts.data(), op.contexts = contexts.data();
      op.selected = selected.data(), op.counts = counts.data();
      const size_t bytes = kernels::cuda::index_score_workspace_bytes(op);
      // A score that nobody has computed would be among the highest.
      OnDevice<float> scores(std::vector<float>(bytes / sizeof(float), 1e30F));
      kernels::cuda::index_score(op, {nullptr, scores.data(), bytes}, nullptr);
      // fp8 products are summed with 14 bits at worst: 2^-13 of a head's magnitudes, a quarter of 128 on average.
      const double tolerance = 1.5 * static_cast<double>(heads) * 32 * 0x1p-13;
      CHECK(IndexProblem::mismatch(want, selected.read(), counts.read(), top_k, tolerance) == "");
    }
  });
}

TEST_CASE("what the indexer cannot compute is refused in one line") {
  core::Random random(1);
  IndexProblem p(random, 16, 128, 16, 4, {{1, 3}});
  const auto message = [&](auto change) -> std::string {
    kernels::IndexScore op = p.op();
    change(op);
    try {
      kernels::cuda::index_score(op, {}, nullptr);
    } catch (const core::Error& error) {
      return error.what();
    }
    return "";
  };
  using Op = kernels::IndexScore;
  CHECK(message([](Op& op) { op.head_dim = 64; }) == "index_score: head_dim is 64; 128 is right");
  CHECK(message([](Op& op) { op.heads = 8; }) == "index_score: 8 heads; a multiple of 16 up to 64 is right");
  CHECK(message([](Op& op) { op.most_context = 1 << 20; }) ==
        "index_score: a context of 1048576; less than 1048576 is right");
  CHECK(message([](Op&) {}) == "index_score: the workspace has 0 bytes; 16 are right");
  CHECK(message([](Op& op) { op.batch = 0; }).empty());
}

}  // namespace
}  // namespace drydock::tests
