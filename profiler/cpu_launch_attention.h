#pragma once
// Attention as calls of this host's kernels; a part of cpu_launch.h.
#include "profiler/cpu_launch.h"

namespace drydock::profiler {

Launch launch_decode_attention(const core::Op& op, kernels::cpu::Threads& threads);
Launch launch_prefill_attention(const core::Op& op, kernels::cpu::Threads& threads);
Launch launch_mla_decode(const core::Op& op, kernels::cpu::Threads& threads);
Launch launch_mla_prefill(const core::Op& op, kernels::cpu::Threads& threads);
Launch launch_sparse_mla(const core::Op& op, kernels::cpu::Threads& threads);
Launch launch_index_score(const core::Op& op, kernels::cpu::Threads& threads);

// Of a key of `qk_dim` numbers the last 64 are rotated in every model there is.
constexpr int64_t rotated_dim(int64_t qk_dim) { return qk_dim > 64 ? 64 : 0; }
inline constexpr int64_t kIndexTopK = 2048;  // tokens that an indexer selects, in every model there is
inline constexpr int64_t kSparseSpread = 4;  // tokens of a sequence to each one that is picked

}  // namespace drydock::profiler
