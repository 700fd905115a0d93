#pragma once
// A step's tokens where the step before drew them, and the host does not know them yet.
#include <cstdint>

namespace drydock::kernels {

// ids[t] = drawn[sources[t]]; where sources[t] is not in [0, drawn_count) ids[t] stays.
struct TakeDrawn {
  int32_t* ids = nullptr;            // (tokens)
  const int32_t* sources = nullptr;  // (tokens)
  const int32_t* drawn = nullptr;    // (drawn_count)
  int64_t tokens = 0, drawn_count = 0;
};

}  // namespace drydock::kernels
