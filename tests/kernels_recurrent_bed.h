#pragma once
// Random steps of recurrent mixers, in memory that a kernel can use.
#include <cmath>
#include <vector>

#include "core/random.h"
#include "kernels/recurrent.h"

namespace drydock::tests {

inline std::vector<float> uniform(core::Random& random, int64_t count, double least, double most) {
  std::vector<float> out(static_cast<size_t>(count));
  for (float& x : out) x = static_cast<float>(least + (most - least) * random.uniform());
  return out;
}

// With keys of unit length, gains below 1 and decays below 1 a column of the state stays below about 2 in length, and a
// query has 1 / sqrt(k_dim); products of k_dim numbers round by k_dim 2^-24 of the lengths at most, each token twice,
// and exp and log by a few units.
inline double delta_tolerance(int64_t tokens, int64_t k_dim) {
  return 8 * static_cast<double>(tokens) * std::sqrt(static_cast<double>(k_dim)) * 0x1p-24;
}

// Steps are below softplus(2) = 2.2 and decays below exp(-exp(-1) softplus(-2)) = 0.96, so that a number of the state
// stays below 50 with inputs up to 1, and half of that at most as a rule; sums over `state` of them round by
// state 2^-24, for the 25 or so tokens that count at a time.
inline double mamba_tolerance(int64_t state) { return 25 * static_cast<double>(state * state) * 0x1p-24; }

}  // namespace drydock::tests
