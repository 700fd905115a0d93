#include "kernels/split.h"

#include <algorithm>
#include <string>

#include "core/error.h"

namespace drydock::kernels {
namespace {

// Share of the last wave that is at work, the full ones before it included.
double wave_efficiency(int64_t units, int64_t slots) {
  const int64_t waves = (units + slots - 1) / slots;
  return static_cast<double>(units) / static_cast<double>(waves * slots);
}

}  // namespace

SplitChoice choose_splits(int64_t tiles, int64_t context, int64_t tile_tokens, int sms, int blocks_per_sm) {
  if (tile_tokens < 1 || sms < 1 || blocks_per_sm < 1)
    throw core::Error("choose_splits: tile of " + std::to_string(tile_tokens) + " tokens on " + std::to_string(sms) +
                      " x " + std::to_string(blocks_per_sm) + " blocks; each has to be 1 or more");
  const int64_t steps = std::max<int64_t>((context + tile_tokens - 1) / tile_tokens, 1);
  if (tiles < 1 || 10 * tiles >= 8 * int64_t{sms}) return {1, steps * tile_tokens};
  const int64_t slots = int64_t{sms} * blocks_per_sm, most = std::min(slots, steps);
  // Splits of equal length: asking for 7 of 10 steps gives 5 of 2. Only numbers that come out are candidates.
  const auto given = [&](int64_t asked) {
    const int64_t length = (steps + asked - 1) / asked;
    return SplitChoice{(steps + length - 1) / length, length * tile_tokens};
  };
  double best = 0;
  for (int64_t asked = 1; asked <= most; ++asked)
    best = std::max(best, wave_efficiency(tiles * given(asked).splits, slots));
  for (int64_t asked = 1; asked < most; ++asked)
    if (wave_efficiency(tiles * given(asked).splits, slots) >= 0.85 * best) return given(asked);
  return given(most);
}

}  // namespace drydock::kernels
