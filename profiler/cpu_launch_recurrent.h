#pragma once
// Recurrent mixers as calls of this host's kernels; a part of cpu_launch.h.
#include "profiler/cpu_launch.h"

namespace drydock::profiler {

Launch launch_gated_delta(const core::Op& op, kernels::cpu::Threads& threads);
Launch launch_mamba2(const core::Op& op, kernels::cpu::Threads& threads);

}  // namespace drydock::profiler
