#include <doctest/doctest.h>

#include <algorithm>

#include "core/error.h"
#include "kernels/split.h"
#include "tests/effort.h"

using drydock::kernels::choose_splits;
using drydock::kernels::SplitChoice;

namespace {

double efficiency(int64_t units, int64_t slots) {
  return static_cast<double>(units) / static_cast<double>((units + slots - 1) / slots * slots);
}

// Best wave efficiency of any number of equal splits, by trying every length of a split.
double best_efficiency(int64_t tiles, int64_t steps, int64_t slots) {
  double best = 0;
  for (int64_t length = 1; length <= steps; ++length) {
    const int64_t splits = (steps + length - 1) / length;
    if (splits <= slots) best = std::max(best, efficiency(tiles * splits, slots));
  }
  return best;
}

void check_choice(int64_t tiles, int64_t context, int64_t tile, int sms, int blocks) {
  const SplitChoice c = choose_splits(tiles, context, tile, sms, blocks);
  const int64_t steps = std::max<int64_t>((context + tile - 1) / tile, 1), slots = int64_t{sms} * blocks;
  bool good = c.splits >= 1 && c.tokens_per_split >= tile && c.tokens_per_split % tile == 0;
  good = good && c.splits * c.tokens_per_split >= context;                          // covers
  good = good && (c.splits == 1 || (c.splits - 1) * c.tokens_per_split < context);  // none empty
  good = good && c.splits <= std::max<int64_t>(slots, 1);
  if (10 * tiles >= 8 * sms)
    good = good && c.splits == 1;
  else
    good = good && efficiency(tiles * c.splits, slots) >= 0.85 * best_efficiency(tiles, steps, slots) - 1e-12;
  if (good) return;
  CAPTURE(tiles);
  CAPTURE(context);
  CAPTURE(tile);
  CAPTURE(sms);
  CAPTURE(blocks);
  CAPTURE(c.splits);
  CAPTURE(c.tokens_per_split);
  REQUIRE(good);
}

}  // namespace

TEST_CASE("splits for every number of SMs: they cover, none is empty, and the waves are near full") {
  for (int sms = 1; sms <= 192; sms += drydock::tests::kLighter)
    for (const int blocks : {1, 2})
      for (const int64_t tiles : {1, 2, 4, 7, 8, 16, 33, 64, 128, 256})
        for (const int64_t context : {0, 1, 64, 127, 128, 129, 1000, 4096, 8192, 40001, 131072})
          for (const int64_t tile : {64, 128}) check_choice(tiles, context, tile, sms, blocks);
}

TEST_CASE("splits worked out by hand") {
  // 1 KV head, 128k tokens, 132 SMs: 1024 steps of 128. Splits of 8 make 128 of 132 slots, 0.97; of 9, 114, 0.864,
  // which is within 85 % of it (0.824) and the fewest: of 10, 103, is 0.78.
  CHECK(choose_splits(1, 131072, 128, 132, 1).splits == 114);
  CHECK(choose_splits(1, 131072, 128, 132, 1).tokens_per_split == 9 * 128);
  // 8 tiles on 132 SMs: 16 splits make 128 units, 0.97, the best; 14 make 112, 0.848; of 32 steps 3 each give 11 and 2
  // each 16.
  CHECK(choose_splits(8, 4096, 128, 132, 1).splits == 16);
  CHECK(choose_splits(106, 131072, 128, 132, 1).splits == 1);  // 106 / 132 is over 80 %
  CHECK(choose_splits(1, 100, 128, 132, 1).splits == 1);       // nothing to split
}

TEST_CASE("more context never gets shorter splits than one tile, and as many or more splits, on an idle device") {
  int64_t before = 1;
  for (int64_t context = 128; context <= 132 * 128; context += 128) {
    const SplitChoice c = choose_splits(1, context, 128, 132, 1);
    // Rounding to equal lengths may give back a few, never a quarter.
    CHECK(c.splits * 4 >= before * 3);
    before = std::max(before, c.splits);
  }
}

TEST_CASE("a device without processors is an error") {
  CHECK_THROWS_AS(choose_splits(1, 100, 128, 0, 1), drydock::core::Error);
  CHECK_THROWS_AS(choose_splits(1, 100, 0, 132, 1), drydock::core::Error);
}
