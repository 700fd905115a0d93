#pragma once
// Random matrices and caches on a GPU, in the forms that kernels take.
#include <cmath>

#include "kernels/attention.h"
#include "kernels/cuda/attention_workspace.h"
#include "kernels/cuda/workspace.h"
#include "kernels/matrix.h"
#include "profiler/cuda/memory.h"

namespace drydock::profiler::cuda {

bool is_fp8(core::Dtype dtype);
int64_t width(core::Dtype dtype);          // bytes of an element; fp8_block as fp8
core::Dtype stored(core::Dtype dtype);     // fp8_block as fp8
kernels::Scaling scaling_of(core::Dtype);  // of weights in it: none, tensor or block
inline float softmax_scale(int64_t head_dim) { return 1.0F / std::sqrt(static_cast<float>(head_dim)); }

// (rows, cols) that stays where it is; fp8 with scales of 1.
kernels::Matrix activations(Memory& memory, core::Dtype dtype, int64_t rows, int64_t cols,
                            kernels::Scaling scaling = kernels::Scaling::none);

// (rows, cols) in copies; fp8 with scales of 1, which all copies share. `groups` of rows that are scaled on their own.
struct Weights {
  kernels::Matrix matrix;
  Rotation copies;
  kernels::Matrix at(int64_t turn) const {
    kernels::Matrix out = matrix;
    out.data = copies.at(turn);
    return out;
  }
};
Weights weights(Memory& memory, core::Dtype dtype, int64_t rows, int64_t cols, kernels::Scaling scaling,
                int64_t groups = 1);

// A paged cache of `batch` sequences of `tokens` each, its blocks at random places.
struct Pages {
  int64_t per_sequence = 0;
  Rotation pool;
  const int32_t* blocks = nullptr;    // (batch, per_sequence)
  const int32_t* contexts = nullptr;  // (batch), all `tokens`
};
Pages pages(Memory& memory, core::Dtype dtype, int64_t batch, int64_t tokens, int64_t row_bytes);

// Zeroed counters first, as kernels want them.
kernels::cuda::Workspace workspace(Memory& memory, size_t bytes);
kernels::cuda::AttentionWorkspace attention_workspace(Memory& memory, size_t bytes);

}  // namespace drydock::profiler::cuda
