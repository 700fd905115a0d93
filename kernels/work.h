#pragma once
// The op that a contract is in the database: its FLOP and bytes are core::flops and core::bytes of that. Reads nothing
// that may lie on a device. Batches count as uniform, at the host's upper bounds.
#include "core/op.h"
#include "kernels/attention.h"
#include "kernels/gemm.h"
#include "kernels/recurrent.h"
#include "kernels/small_ops.h"

namespace drydock::kernels {

core::Op op_of(const Gemm& op);
core::Op op_of(const DecodeAttention& op);
core::Op op_of(const PrefillAttention& op, int64_t cached_tokens);  // in the cache before each chunk
core::Op op_of(const MlaDecode& op);
core::Op op_of(const SparseMla& op);
core::Op op_of(const IndexScore& op);
// The rotated key that heads share counts for each of them, as where keys are put together before.
core::Op op_of(const MlaPrefill& op, int64_t cached_tokens);
core::Op op_of(const GatedDelta& op);  // tokens / batch of each sequence
core::Op op_of(const Mamba2& op);

// As elementwise, bytes per token; weights and tables that all tokens share are left out.
core::Op op_of(const AddRmsNorm& op);
core::Op op_of(const SiluMul& op);
core::Op op_of(const Quantize& op);
core::Op op_of(const RopeAppend& op);
core::Op op_of(const Embed& op);

}  // namespace drydock::kernels
