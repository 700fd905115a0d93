#pragma once
// From logits to the next token on a GPU: contract in kernels/sampling.h. One thread block a row; vocabularies below
// 2^20. Chances are fixed-point (2^-40 of the likeliest token's), so that the choice does not depend on the order in
// which threads add; a token below that is never chosen. Asynchronous; throws core::Error on logits that are not fp32,
// too large a vocabulary, or if the launch fails.
#include "kernels/cuda/stream.h"
#include "kernels/sampling.h"

namespace drydock::kernels::cuda {

void sample(const Sample& op, Stream stream);

}  // namespace drydock::kernels::cuda
