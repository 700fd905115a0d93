#pragma once
// What the kernels have to compute, in double and as plainly as it can be written: the oracle for CPU and CUDA kernels.
// Host pointers only. Inputs are read at their stored precision; results are returned unrounded, in the order of the
// contract's output without its stride, and no output of the contract is written or read (outputs may be null).
#include <cstdint>
#include <vector>

#include "kernels/attention.h"
#include "kernels/gemm.h"
#include "kernels/moe.h"
#include "kernels/recurrent.h"
#include "kernels/sampling.h"
#include "kernels/small_ops.h"
#include "kernels/take_drawn.h"

namespace drydock::kernels::reference {

// Element i of an array, and element (r, c) of a matrix with its scale.
double element(const void* data, core::Dtype dtype, int64_t i);
double element(const Matrix& matrix, int64_t r, int64_t c);

std::vector<double> gemm(const Gemm& op);                 // (m, n)
std::vector<double> grouped_gemm(const GroupedGemm& op);  // (rows, n); rows of no group are 0

std::vector<double> decode_attention(const DecodeAttention& op);    // (batch, heads, head_dim)
std::vector<double> prefill_attention(const PrefillAttention& op);  // (tokens, heads, head_dim)
std::vector<double> mla_decode(const MlaDecode& op);                // (batch, heads, latent)
std::vector<double> sparse_mla(const SparseMla& op);                // (tokens, heads, latent)
std::vector<double> mla_prefill(const MlaPrefill& op);              // (tokens, heads, value_dim)

struct Indexed {
  std::vector<std::vector<double>> scores;     // of each token, of all that it sees
  std::vector<std::vector<int32_t>> selected;  // as the contract says, by these scores
};
Indexed index_score(const IndexScore& op);

struct Recurred {
  std::vector<double> out;     // (tokens, heads, v_dim)
  std::vector<double> states;  // (batch, heads, k_dim, v_dim): after the step, in the sequences' order
};
Recurred gated_delta(const GatedDelta& op);
Recurred mamba2(const Mamba2& op);

struct Routed {
  std::vector<int32_t> experts;  // (tokens, top_k)
  std::vector<double> weights;   // (tokens, top_k)
};
Routed route(const Route& op);  // a NaN logit counts as -infinity

struct Permuted {
  std::vector<int32_t> starts;   // (local_experts + 1)
  std::vector<int32_t> sources;  // (starts.back()): only the rows that are filled
  std::vector<int32_t> rows;     // (tokens, top_k)
};
Permuted permute(const Permute& op);

std::vector<double> gather(const Gather& op);    // (row_count, hidden)
std::vector<double> combine(const Combine& op);  // (tokens, hidden)

struct Normed {
  std::vector<double> residual;  // (tokens, hidden), rounded to residual's dtype: what `out` is computed from
  std::vector<double> out;       // (tokens, hidden), not quantized
};
Normed add_rms_norm(const AddRmsNorm& op);

std::vector<double> silu_mul(const SiluMul& op);  // (tokens, width), not quantized

// Scales that Scaling::row or Scaling::block give (rows, cols) numbers: largest magnitude / 448.
std::vector<double> fresh_scales(const std::vector<double>& numbers, int64_t cols, Scaling scaling);

struct Roped {
  std::vector<double> qkv;   // (tokens, (heads + 2 * kv_heads) * head_dim)
  std::vector<double> k, v;  // (tokens, kv_heads, head_dim): numbers to be cached, not rounded; element * scale
};
Roped rope_append(const RopeAppend& op);

std::vector<double> embed(const Embed& op);  // (tokens, hidden)

// Of what every rank of a group gives: their sum (rows, cols), and their columns beside each other (rows, ranks *
// cols).
std::vector<double> all_reduce(const std::vector<Matrix>& parts);
std::vector<double> all_gather(const std::vector<Matrix>& parts);

// Chance of every token of one row after temperature, top-k and top-p: sums to 1. Temperature 0: all on one token.
// A NaN logit counts as -infinity.
std::vector<double> chances(const Sample& op, int64_t row);
std::vector<int32_t> sample(const Sample& op);         // (rows)
std::vector<int32_t> take_drawn(const TakeDrawn& op);  // (tokens)

}  // namespace drydock::kernels::reference
