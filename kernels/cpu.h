#pragma once
// The kernels on this machine's processors: one function per contract, every pointer in host memory. Each throws
// core::Error on formats or extents it cannot compute; results are the same for any number of threads.
#include <string_view>

#include "kernels/attention.h"
#include "kernels/block_copy.h"
#include "kernels/gemm.h"
#include "kernels/moe.h"
#include "kernels/recurrent.h"
#include "kernels/sampling.h"
#include "kernels/small_ops.h"
#include "kernels/take_drawn.h"
#include "kernels/threads.h"

namespace drydock::kernels::cpu {

void gemm(const Gemm& op, Threads& threads);
void grouped_gemm(const GroupedGemm& op, Threads& threads);

void decode_attention(const DecodeAttention& op, Threads& threads);
void prefill_attention(const PrefillAttention& op, Threads& threads);
void mla_decode(const MlaDecode& op, Threads& threads);
void sparse_mla(const SparseMla& op, Threads& threads);
void mla_prefill(const MlaPrefill& op, Threads& threads);
void index_score(const IndexScore& op, Threads& threads);

void gated_delta(const GatedDelta& op, Threads& threads);
void mamba2(const Mamba2& op, Threads& threads);

void route(const Route& op, Threads& threads);
void permute(const Permute& op);
void gather(const Gather& op, Threads& threads);
void combine(const Combine& op, Threads& threads);

void add_rms_norm(const AddRmsNorm& op, Threads& threads);
void silu_mul(const SiluMul& op, Threads& threads);
void quantize(const Quantize& op, Threads& threads);
void rope_append(const RopeAppend& op, Threads& threads);
void embed(const Embed& op, Threads& threads);
void sample(const Sample& op, Threads& threads);
void take_drawn(const TakeDrawn& op);

void gather_blocks(const BlockCopy& op, Threads& threads);
void scatter_blocks(const BlockCopy& op, Threads& threads);

// The instruction set the kernels run on here: "avx512bf16", "avx512", "avx2" or "baseline" (what the compiler targets
// anyway). With the first, products of bf16 with bf16 take subnormal operands and sums for 0.
const char* instruction_set();

// Uses another one from now on, for tests and comparisons; false, and no change, if this processor lacks it. Not to be
// called while a kernel runs.
bool use_instruction_set(std::string_view name);

}  // namespace drydock::kernels::cpu
