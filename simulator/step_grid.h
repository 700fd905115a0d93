#pragma once
// The points at which TablePrice prices steps.
#include <bit>
#include <cstddef>
#include <cstdint>

namespace drydock::simulator {

// Grids. Tokens and output sequences: 0, 1 ... 8, then 8 points an octave. Decode sequences: 1, 2, 3, 4, 6, 8, 12 ...;
// contexts: 0 and 64 times those. Prompts in a step and their tokens: powers of 2; cached tokens: 0 and 128 times
// these.
inline constexpr size_t kTokenLevels = 9 + 8 * 20, kSequenceLevels = 36, kContextLevels = 42;
inline constexpr size_t kPromptLevels = 13, kPromptTokenLevels = 25, kCachedLevels = 20;
inline constexpr double kContextUnit = 64, kCachedUnit = 128;

inline int octave(double x) { return static_cast<int>(std::bit_width(static_cast<uint64_t>(x))) - 1; }
inline double power_of_2(size_t exponent) { return static_cast<double>(uint64_t{1} << exponent); }

inline double token_at(size_t level) {
  if (level <= 8) return static_cast<double>(level);
  return power_of_2(3 + (level - 8) / 8) * (1 + static_cast<double>((level - 8) % 8) / 8);
}
inline size_t token_level(double x) {
  if (x < 8) return static_cast<size_t>(x);
  const int e = octave(x);
  return 8 + static_cast<size_t>(e - 3) * 8 + static_cast<size_t>((x / power_of_2(static_cast<size_t>(e)) - 1) * 8);
}

inline double half_octave_at(size_t level) {
  return level == 0 ? 1 : power_of_2((level + 1) / 2) * (level % 2 == 1 ? 1 : 1.5);
}
inline size_t half_octave_level(double x) {
  if (x < 2) return 0;
  const auto e = static_cast<size_t>(octave(x));
  return 2 * e - 1 + (x >= 1.5 * power_of_2(e) ? 1 : 0);
}
inline double context_at(size_t level) { return level == 0 ? 0 : kContextUnit * half_octave_at(level - 1); }
inline size_t context_level(double x) { return x < kContextUnit ? 0 : 1 + half_octave_level(x / kContextUnit); }
inline double cached_at(size_t level) { return level == 0 ? 0 : kCachedUnit * power_of_2(level - 1); }
inline size_t cached_level(double x) { return x < kCachedUnit ? 0 : 1 + static_cast<size_t>(octave(x / kCachedUnit)); }

}  // namespace drydock::simulator
