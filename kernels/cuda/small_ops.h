#pragma once
// The memory-bound ops between the matrix products, on a GPU: contracts in kernels/small_ops.h. Inputs and residuals
// are bf16 (quantize takes fp32 too), outputs bf16 or fp8; rows of at most 28672 columns, but for silu_mul, quantize
// and embed without row scales. All are asynchronous on `stream`, start early behind the kernel ahead of them
// (programmatic dependent launch), and throw core::Error on a dtype or shape that they do not know or if the launch
// fails; an empty shape is a no-op.
#include "kernels/cuda/stream.h"
#include "kernels/small_ops.h"

namespace drydock::kernels::cuda {

void add_rms_norm(const AddRmsNorm& op, Stream stream);
void silu_mul(const SiluMul& op, Stream stream);
void quantize(const Quantize& op, Stream stream);
void rope_append(const RopeAppend& op, Stream stream);
void embed(const Embed& op, Stream stream);

}  // namespace drydock::kernels::cuda
