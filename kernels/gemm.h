#pragma once
// Matrix products as model layers need them: weights stored (n, k), as Hugging Face checkpoints have them.
#include <cstdint>

#include "kernels/matrix.h"

namespace drydock::kernels {

// out(m, n) = a(m, k) * b(n, k)^T. Accumulates in fp32. a.dtype and b.dtype are equal, or a is bf16/fp32 and b wider or
// equal in storage; out is fp32 or bf16, never scaled.
struct Gemm {
  Matrix a;    // (m, k)
  Matrix b;    // (n, k)
  Matrix out;  // (m, n)
};

// One product per group over rows that lie one after another: for each g, rows [starts[g], starts[g + 1]) of `a` times
// weights g, to the same rows of `out`. Empty groups are allowed.
struct GroupedGemm {
  Matrix a;               // (rows, k)
  Matrix b;               // (groups * n, k): group g's weights are rows [g * n, (g + 1) * n); scales likewise
  Matrix out;             // (rows, n)
  const int32_t* starts;  // (groups + 1), on the device
  int64_t groups = 0;
  const int32_t* host_starts = nullptr;  // the same on the host, for kernels of others; null: not known there
};

}  // namespace drydock::kernels
