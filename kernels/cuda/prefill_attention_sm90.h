#pragma once
// The path of prefill attention that needs Hopper's instructions; prefill_attention.h is what callers use.
#include "kernels/attention.h"
#include "kernels/cuda/stream.h"

namespace drydock::kernels::cuda {

#ifdef DRYDOCK_SIMT_EMULATOR
// The emulator knows neither wgmma nor TMA.
inline bool can_prefill_sm90(const PrefillAttention&) { return false; }
inline void prefill_attention_sm90(const PrefillAttention&, Stream) {}
#else
bool can_prefill_sm90(const PrefillAttention& op);
void prefill_attention_sm90(const PrefillAttention& op, Stream stream);
#endif

}  // namespace drydock::kernels::cuda
