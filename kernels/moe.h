#pragma once
// A layer of routed experts around the grouped GEMM: choose, sort by expert, gather, and sum back.
#include <cstdint>

#include "kernels/matrix.h"

namespace drydock::kernels {

// Softmax over experts, then the top k; with `renormalize` the k weights sum to 1. Ties go to the lower index.
struct Route {
  Matrix logits;               // (tokens, experts), fp32
  int32_t* experts = nullptr;  // (tokens, top_k), most likely first
  float* weights = nullptr;    // (tokens, top_k)
  int64_t top_k = 0;
  bool renormalize = true;
};

// Counting sort of the (token, choice) pairs by expert, stable.
struct Permute {
  const int32_t* experts = nullptr;  // (tokens, top_k)
  int64_t tokens = 0, top_k = 0;
  int64_t first_expert = 0, local_experts = 0;  // pairs of other experts are left out
  int32_t* starts = nullptr;                    // (local_experts + 1): rows of each expert among the sorted
  int32_t* sources = nullptr;                   // (tokens * top_k): the pair token * top_k + choice of each sorted row
  int32_t* rows = nullptr;                      // (tokens, top_k): sorted row of each pair, -1: not local
};

// out row r = in row sources[r] / top_k, for the rows below starts[local_experts].
struct Gather {
  Matrix in;   // (tokens, hidden)
  Matrix out;  // (tokens * top_k, hidden)
  const int32_t* sources = nullptr;
  const int32_t* row_count = nullptr;  // 1, on the device: &starts[local_experts]
  int64_t top_k = 0;
};

// out[t] = sum over choices of weights[t, c] * in[rows[t, c]]; a row of -1 adds nothing. Sums in fp32.
struct Combine {
  Matrix in;                       // (sorted rows, hidden)
  Matrix out;                      // (tokens, hidden)
  const int32_t* rows = nullptr;   // (tokens, top_k)
  const float* weights = nullptr;  // (tokens, top_k)
  int64_t top_k = 0;
};

}  // namespace drydock::kernels
