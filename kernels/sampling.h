#pragma once
// From logits to the next token.
#include <cstdint>

#include "kernels/matrix.h"

namespace drydock::kernels {

// Per row: temperature 0 takes the largest logit (lowest index on a tie). Otherwise the k largest logits (top_k 0:
// all), softmax at the temperature, the smallest set whose probabilities reach top_p (the one that reaches it
// included, equals in order of index), and one draw from it, its members in order of index, by Philox 4x32-10 keyed by
// the row's seed and counter: the same on every device.
struct Sample {
  Matrix logits;                        // (rows, vocabulary), fp32
  const float* temperatures = nullptr;  // (rows)
  const int32_t* top_k = nullptr;       // (rows)
  const float* top_p = nullptr;         // (rows), in (0, 1]
  const uint64_t* seeds = nullptr;      // (rows)
  const uint64_t* counters = nullptr;   // (rows): index of the token in its answer
  int32_t* tokens = nullptr;            // (rows)
};

// Philox 4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011): first word of the block
// with key `seed` and counter `counter`, as a number in [0, 1).
float philox_uniform(uint64_t seed, uint64_t counter);

}  // namespace drydock::kernels
