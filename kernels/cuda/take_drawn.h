#pragma once
// A step's tokens where the step before drew them, on a GPU: contract in kernels/take_drawn.h.
#include "kernels/cuda/stream.h"
#include "kernels/take_drawn.h"

namespace drydock::kernels::cuda {

// Asynchronous on `stream`; no tokens are a no-op. Throws core::Error if the launch fails.
void take_drawn(const TakeDrawn& op, Stream stream);

}  // namespace drydock::kernels::cuda
