#include <doctest/doctest.h>

#include "core/error.h"
#include "kernels/work.h"
#include "tests/kernels_bed.h"
#include "tests/kernels_index_bed.h"

using namespace drydock;
using namespace drydock::kernels;
using namespace drydock::tests;

TEST_CASE("the indexer selects what the reference's scores say, whatever the threads") {
  core::Random random(61);
  on_each_instruction_set([&](const std::string& name) {
    CAPTURE(name);
    for (const auto& [heads, dim, top_k] : {std::array<int64_t, 3>{16, 128, 20}, {3, 24, 7}, {9, 40, 200}}) {
      CAPTURE(heads);
      IndexProblem p(random, heads, dim, 16, top_k, {{3, 60}, {0, 9}, {1, 0}, {21, 0}});
      const auto want = reference::index_score(p.op());
      std::vector<int32_t> first;
      for (const int count : {1, 3}) {
        cpu::Threads threads(count);
        cpu::index_score(p.op(), threads);
        if (first.empty()) first = p.selected;
        CHECK(p.selected == first);
      }
      // Products of e4m3 numbers up to 1 are exact, a head's sum is below dim and rounds by dim 2^-24 of it, and the
      // heads' by as much again; scales are below 1.5.
      const double tolerance = 3 * static_cast<double>(heads * dim * (dim + heads)) * 0x1p-24;
      CHECK(IndexProblem::mismatch(want, p.selected, p.counts, top_k, tolerance) == "");
    }
  });
}

TEST_CASE("the indexer: NaN is the lowest, work by hand, refusals") {
  core::Random random(62);
  cpu::Threads threads(1);
  IndexProblem p(random, 8, 32, 16, 30, {{1, 31}});
  p.key_scales[static_cast<size_t>(p.blocks[0] * 16 + 3)] = NAN;
  p.key_scales[static_cast<size_t>(p.blocks[1] * 16 + 5)] = NAN;
  cpu::index_score(p.op(), threads);
  std::vector<int32_t> all(32);
  std::iota(all.begin(), all.end(), 0);
  all.erase(all.begin() + 21), all.erase(all.begin() + 3);
  CHECK(p.selected == all);
  CHECK(core::key(op_of(p.op())) == "index_score/fp8/batch=1,new_tokens=1,context=32,heads=8,head_dim=32");
  CHECK(core::flops(op_of(p.op())) == 2.0 * 32 * 8 * 32);
  CHECK(core::bytes(op_of(p.op())) == 32.0 * 32 + 8 * 32);
  IndexScore op = p.op();
  op.top_k = 0;
  CHECK_THROWS_WITH_AS(cpu::index_score(op, threads), "index_score: extents have to be above 0", core::Error);
}
