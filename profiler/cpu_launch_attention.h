#pragma once
// Attention as calls of this host's kernels; a part of cpu_launch.h.
#include "profiler/cpu_launch.h"

namespace drydock::profiler {

Launch launch_decode_attention(const core::Op& op, kernels::cpu::Threads& threads);
Launch launch_prefill_attention(const core::Op& op, kernels::cpu::Threads& threads);
Launch launch_mla_decode(const core::Op& op, kernels::cpu::Threads& threads);

}  // namespace drydock::profiler
